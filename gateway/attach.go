package gateway

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// attacher asks the active metaserver for epochs.
type attacher struct {
	node    metav1.NodeClient
	gateway func() uint64
}

const (
	// attachAttempt bounds one question; the command that waits for the answer asks again as long as it lives.
	attachAttempt = 10 * time.Second
	// confirmTimeout bounds how long a host that comes back waits for the metaserver's word on the epoch that it had. Without
	// it that epoch is used: if the path has moved the copysets refuse it.
	confirmTimeout = time.Second
)

// Attach implements volume.Attacher. What the metaserver refuses to the initiator (its entry is gone, or too many names have
// used the volume) is a volume.ErrAccessRevoked.
func (a *attacher) Attach(ctx context.Context, id layout.VolumeID, initiator string, had layout.Epoch) (volume.Attachment, error) {
	if had != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, confirmTimeout)
		defer cancel()
	}
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
		case status.Code(err) == codes.FailedPrecondition || status.Code(err) == codes.ResourceExhausted:
			return volume.Attachment{}, fmt.Errorf("%w: %w", volume.ErrAccessRevoked, err)
		case !timedOut:
			return volume.Attachment{}, err
		}
	}
}
