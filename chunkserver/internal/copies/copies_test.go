package copies

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errBad  = errors.New("damaged there too")
	errUnit = errors.New("does not fit")
)

// TestFirst: chunkserver n answers after n seconds.
func TestFirst(t *testing.T) {
	for _, c := range []struct {
		what string
		from []layout.ChunkserverID
		bad  layout.ChunkserverID // can not read
		unit uint64               // does not fit
		want error
		took time.Duration
	}{
		{"the first that answers", []layout.ChunkserverID{3, 1, 2}, 0, 0, nil, time.Second},
		{"the first is damaged", []layout.ChunkserverID{1, 2, 3}, 1, 0, nil, 2 * time.Second},
		{"the first does not fit", []layout.ChunkserverID{1, 2, 3}, 0, 1, nil, 2 * time.Second},
		{"none is good, the last says why", []layout.ChunkserverID{1, 2}, 1, 2, errUnit, 2 * time.Second},
		{"nobody is there", nil, 0, 0, ErrNobody, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			read := func(ctx context.Context, a Ask) (Copy, error) {
				cs := a.Chunkserver
				select {
				case <-ctx.Done():
					return Copy{}, ctx.Err()
				case <-time.After(time.Duration(cs) * time.Second):
				}
				if cs == c.bad {
					return Copy{}, errBad
				}
				return Copy{Through: uint64(cs)}, nil
			}
			put := func(got Copy) error {
				if got.Through == c.unit {
					return errUnit
				}
				return nil
			}
			var asks []Ask
			for _, cs := range c.from {
				asks = append(asks, Ask{cs, 1})
			}
			err := First(t.Context(), sched.NewClock(nil), nil, asks, read, put)
			if !errors.Is(err, c.want) || time.Since(begin) != c.took {
				t.Errorf("%s: %v after %v", c.what, err, time.Since(begin))
			}
		})
	}
}

// TestFirstStops: who waits is told that the host stops.
func TestFirstStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopped := make(chan struct{})
		close(stopped)
		read := func(ctx context.Context, _ Ask) (Copy, error) {
			<-ctx.Done()
			return Copy{}, ctx.Err()
		}
		err := First(t.Context(), sched.NewClock(nil), stopped, Asks([]layout.ChunkserverID{2}, 7), read, func(Copy) error { return nil })
		if !errors.Is(err, sched.ErrStopped) {
			t.Error(err)
		}
	})
}
