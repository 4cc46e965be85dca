package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// silentNode is a metaserver that takes heartbeats and does not answer.
type silentNode struct {
	metav1.NodeClient
	asked []*metav1.GatewayHeartbeatRequest
}

func (n *silentNode) GatewayHeartbeat(
	ctx context.Context, r *metav1.GatewayHeartbeatRequest, _ ...grpc.CallOption,
) (*metav1.GatewayHeartbeatReply, error) {
	n.asked = append(n.asked, r)
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestLeave: a gateway that stops says so although its context has ended, and waits for no metaserver.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{log: zap.NewNop()}
		g.id.Store(7)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		node, began := &silentNode{}, time.Now()
		g.leave(ctx, node)
		if took := time.Since(began); took != leaveTimeout {
			t.Errorf("it took %v", took)
		}
		if len(node.asked) != 1 || node.asked[0].GetId() != 7 || !node.asked[0].GetLeaving() {
			t.Errorf("the metaserver was told %v", node.asked)
		}
	})
}
