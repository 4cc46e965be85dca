package volume_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ashlar-storage/ashlar/storage/volume"
)

// step is an operation on one of the registers, which are sectors: 'r', 'w', or 'c' for a compare and write.
type step struct {
	kind          byte
	register      int
	compare, next uint64
}

// outcome is its result; open: it ended with ErrStaleEpoch, and may be done or not.
type outcome struct {
	value   uint64 // read
	swapped bool
	open    bool
}

var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := map[int][]porcupine.Operation{}
		for _, op := range history {
			r := op.Input.(step).register
			parts[r] = append(parts[r], op)
		}
		var out [][]porcupine.Operation
		for _, p := range parts {
			out = append(out, p)
		}
		return out
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		v, in, out := state.(uint64), input.(step), output.(outcome)
		equal := v == in.compare
		switch {
		case in.kind == 'r':
			return out.value == v, v
		case in.kind == 'w':
			return true, in.next
		case !out.open && out.swapped != equal:
			return false, v
		case equal:
			return true, in.next
		}
		return true, v
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v %+v", input, output) },
}

// recorder runs operations and keeps their history.
type recorder struct {
	begin time.Time
	next  atomic.Uint64
	mu    sync.Mutex
	ops   []porcupine.Operation
}

// do does one operation. An error is one that the operation must not end with.
func (r *recorder) do(ctx context.Context, client int, h *volume.Handle, in step) (outcome, error) {
	at := int64(in.register) * chunkSize // each in another copyset
	b, old := make([]byte, 512), make([]byte, 512)
	binary.BigEndian.PutUint64(b, in.next)
	binary.BigEndian.PutUint64(old, in.compare)
	var out outcome
	var err error
	var mis *volume.MiscompareError
	call := time.Since(r.begin)
	switch in.kind {
	case 'r':
		err = h.ReadAt(ctx, b, at)
		out.value = binary.BigEndian.Uint64(b)
	case 'w':
		err = h.WriteAt(ctx, b, at)
	default:
		err = h.CompareAndWrite(ctx, old, b, at)
		if out.swapped = err == nil; errors.As(err, &mis) {
			err = nil
		}
	}
	ret := time.Since(r.begin)
	if errors.Is(err, volume.ErrStaleEpoch) && in.kind != 'r' {
		out.open, ret, err = true, time.Hour, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(ret)})
	return out, err
}

// TestLinearizable has an initiator use some blocks through two gateways at once, several operations at a time, over links that
// lose, delay and repeat, and leaders that move. Whatever moves in between, each block is linearizable, and no operation
// fails; one whose pieces may be done when they are refused may end open.
func TestLinearizable(t *testing.T) {
	const clients, steps, shared = 6, 80, 3
	seed := seedBase(t)
	f := newFakeCluster(42+seed, 3, 3)
	f.faults = true
	one, two, _ := twoGateways(t, f, alwaysWanted)
	handles := []*volume.Handle{one, two}
	ctx := within(t, 60*time.Second)
	r := &recorder{begin: time.Now()}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(c)+seed, 7))
			seen := [shared]uint64{}
			for range steps {
				in := step{kind: "rrwwc"[rnd.IntN(5)], register: rnd.IntN(shared), next: r.next.Add(1)}
				in.compare = seen[in.register]
				out, err := r.do(ctx, c, handles[rnd.IntN(2)], in)
				switch {
				case err != nil:
					t.Errorf("%+v: %v", in, err)
					return
				case in.kind == 'r':
					seen[in.register] = out.value
				case out.open:
				case in.kind == 'w' || out.swapped:
					seen[in.register] = in.next
				}
			}
		})
	}
	wg.Wait()
	open := 0
	for _, op := range r.ops {
		if op.Output.(outcome).open {
			open++
		}
	}
	t.Logf("%d operations in %v, %d epochs, %d ended open", len(r.ops), time.Since(r.begin).Round(time.Millisecond), f.epoch, open)
	if f.epoch < 10 {
		t.Errorf("%d epochs: the path hardly moved", f.epoch)
	}
	if got := porcupine.CheckOperationsTimeout(registers, r.ops, 30*time.Second); got != porcupine.Ok {
		t.Errorf("the history is not linearizable: %v", got)
	}
}
