package gateway

import (
	"context"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// attacher asks the active metaserver for epochs.
type attacher struct {
	node    metav1.NodeClient
	gateway func() uint64
}

// attachAttempt bounds one question; the command that waits for the answer asks again as long as it lives.
const attachAttempt = 10 * time.Second

// Attach implements volume.Attacher.
func (a *attacher) Attach(ctx context.Context, id layout.VolumeID, initiator string, had layout.Epoch) (volume.Attachment, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, attachAttempt)
		reply, err := a.node.Attach(attempt, &metav1.AttachRequest{
			Gateway: a.gateway(), Volume: uint64(id), Initiator: initiator, Had: uint64(had),
		})
		timedOut := attempt.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			return volume.Attachment{
				Initiator: layout.InitiatorID(reply.GetInitiatorId()),
				Epoch:     layout.Epoch(reply.GetEpoch()),
				Access:    layout.AccessGeneration(reply.GetAccessGeneration()),
			}, nil
		case !timedOut:
			return volume.Attachment{}, err
		}
	}
}
