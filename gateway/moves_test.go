package gateway

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// TestBothPathsAtOnce has a host use two gateways by turns, several commands at a time: all are served, each once.
func TestBothPathsAtOnce(t *testing.T) {
	const workers, commands = 8, 25
	f, _, one, two := twoGateways(t)
	paths := []*medium{one.Open(testVolume, testHost), two.Open(testVolume, testHost)}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range commands {
				if err := paths[(w+i)%2].Write(t.Context(), make([]byte, 512), int64(w)*512); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	moves := one.moves.total.Load() + two.moves.total.Load()
	if f.served() != workers*commands || f.repeated != 0 || moves == 0 {
		t.Errorf("%d commands served, %d of them twice, %d moves", f.served(), f.repeated, moves)
	}
}

// TestMovesAreTold: each line of the log tells how many moves there were since the one before.
func TestMovesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, lines := observer.New(zapcore.InfoLevel)
		m := moves{log: zap.New(core)}
		m.note(volume.Move{Volume: testVolume, Initiator: testHost})
		for range 4 {
			time.Sleep(time.Second)
			m.note(volume.Move{Volume: testVolume, Initiator: testHost})
		}
		time.Sleep(movesLogEvery)
		m.note(volume.Move{Volume: testVolume, Initiator: testHost, Lasted: time.Second, Pause: paceOfTest})
		all := lines.All()
		if len(all) != 2 || m.total.Load() != 6 {
			t.Fatalf("%d lines, %d moves", len(all), m.total.Load())
		}
		first, second := all[0].ContextMap(), all[1].ContextMap()
		if first["moves"] != uint64(1) || second["moves"] != uint64(5) || second["initiator"] != testHost || second["pause"] != paceOfTest {
			t.Errorf("%v, %v", first, second)
		}
	})
}

const paceOfTest = 50 * time.Millisecond

// deafNode is a metaserver that does not answer.
type deafNode struct {
	metav1.NodeClient
	asked int
}

func (n *deafNode) Attach(ctx context.Context, _ *metav1.AttachRequest, _ ...grpc.CallOption) (*metav1.AttachReply, error) {
	n.asked++
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestAttachPatience: a question for an epoch that is in doubt is given up soon; one for the next epoch as late as its command is.
func TestAttachPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &deafNode{}
		a := &attacher{node: n, gateway: func() uint64 { return 1 }}
		begun := time.Now()
		if _, err := a.Attach(t.Context(), testVolume, testHost, 7); err == nil || time.Since(begun) != confirmTimeout || n.asked != 1 {
			t.Errorf("%v after %v, asked %d times", err, time.Since(begun), n.asked)
		}
		begun = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Attach(ctx, testVolume, testHost, 0); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Minute || n.asked < 6 {
			t.Errorf("%v after %v, asked %d times", err, time.Since(begun), n.asked)
		}
	})
}
