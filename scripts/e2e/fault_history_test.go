//go:build e2e

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
	"github.com/ashlar-storage/ashlar/scripts/e2e/load"
)

// Shape of the history: a few clients on a few shared logical blocks, so that they meet.
const (
	historyClients = 8
	historyBlocks  = 6
	historyFirst   = 64 // logical block
	historyTimeout = 3 * time.Second
)

// step is one operation on a block as the checker sees it: 'r', 'w', or 'c' for COMPARE AND WRITE.
type step struct {
	kind     byte
	block    uint64
	old, new uint64
}

// outcome is its result. An operation whose session ended has an unknown one.
type outcome struct {
	value   uint64 // read
	swapped bool
	unknown bool
}

// register is the sequential model of one logical block: a register with compare-and-swap.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := map[uint64][]porcupine.Operation{}
		for _, op := range history {
			b := op.Input.(step).block
			parts[b] = append(parts[b], op)
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
		switch in.kind {
		case 'r':
			return out.value == v, v
		case 'w':
			return true, in.new
		default:
			if out.unknown {
				if v == in.old {
					return true, in.new
				}
				return true, v
			}
			if out.swapped != (v == in.old) {
				return false, v
			}
			if out.swapped {
				return true, in.new
			}
			return true, v
		}
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(step), output.(outcome)
		return fmt.Sprintf("%c block %d old %d new %d -> %+v", in.kind, in.block, in.old, in.new, out)
	},
}

// history collects operations of several clients.
type history struct {
	begin  time.Time
	value  atomic.Uint64
	mu     sync.Mutex
	ops    []porcupine.Operation
	errors []string
}

// run is one client: it works through the portals in turn, each time that its session ends or hangs.
func (h *history) run(ctx context.Context, id int, c *load.Client, portals []string) {
	defer c.Close()
	rnd := rand.New(rand.NewPCG(uint64(id), uint64(h.begin.UnixNano())))
	seen := map[uint64]uint64{}
	at := 0
	for ctx.Err() == nil {
		in := step{block: historyFirst + rnd.Uint64N(historyBlocks), new: h.value.Add(1)}
		in.kind = "rrwwc"[rnd.IntN(5)]
		in.old = seen[in.block]
		call := time.Since(h.begin)
		out, err := h.do(ctx, c, in)
		if err != nil && !out.unknown {
			h.mu.Lock()
			h.errors = append(h.errors, err.Error())
			h.mu.Unlock()
			return
		}
		h.add(id, in, out, call)
		if out.unknown {
			at = (at + 1) % len(portals)
			c.Use(portals[at])
			continue
		}
		switch {
		case in.kind == 'r':
			seen[in.block] = out.value
		case in.kind == 'w' || out.swapped:
			seen[in.block] = in.new
		}
		time.Sleep(time.Duration(rnd.IntN(4)) * time.Millisecond)
	}
}

// do executes one operation. The outcome is unknown when the session ended under it.
func (h *history) do(ctx context.Context, c *load.Client, in step) (outcome, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), historyTimeout)
	defer cancel()
	s, err := c.Session(ctx)
	if err != nil {
		return outcome{unknown: true}, err
	}
	lb := c.LogicalBlock()
	for {
		out, err := once(ctx, s, lb, in)
		switch {
		case err == nil:
			return out, nil
		case initiator.Retryable(err) && ctx.Err() == nil:
			time.Sleep(10 * time.Millisecond)
		case errors.Is(err, initiator.ErrClosed), initiator.Aborted(err), ctx.Err() != nil:
			return outcome{unknown: true}, err
		default:
			return outcome{}, err
		}
	}
}

func once(ctx context.Context, s *initiator.Session, lb int, in step) (outcome, error) {
	switch in.kind {
	case 'r':
		b := make([]byte, lb)
		if err := s.Read(ctx, in.block, lb, b); err != nil {
			return outcome{}, err
		}
		v, err := valueOf(b)
		return outcome{value: v}, err
	case 'w':
		return outcome{}, s.Write(ctx, in.block, lb, blockOf(lb, in.new))
	default:
		err := s.CompareAndWrite(ctx, in.block, blockOf(lb, in.old), blockOf(lb, in.new))
		if errors.Is(err, initiator.ErrMiscompare) {
			return outcome{}, nil
		}
		return outcome{swapped: err == nil}, err
	}
}

// blockOf repeats a value over a logical block.
func blockOf(lb int, v uint64) []byte {
	b := make([]byte, lb)
	for i := 0; i < lb; i += 8 {
		binary.BigEndian.PutUint64(b[i:], v)
	}
	return b
}

// valueOf reads it again; a block with two values is torn.
func valueOf(b []byte) (uint64, error) {
	v := binary.BigEndian.Uint64(b)
	for i := 8; i < len(b); i += 8 {
		if w := binary.BigEndian.Uint64(b[i:]); w != v {
			return 0, fmt.Errorf("torn block: value %d at 0, %d at %d", v, w, i)
		}
	}
	return v, nil
}

// add records an operation. One with an unknown outcome may take effect at any later time; a read without an
// answer says nothing.
func (h *history) add(id int, in step, out outcome, call time.Duration) {
	ret := int64(time.Since(h.begin))
	if out.unknown {
		if in.kind == 'r' {
			return
		}
		ret = int64(time.Hour)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: id, Input: in, Call: int64(call), Output: out, Return: ret})
}

// TestFaultHistory lets clients share blocks through two gateways, stops one gateway and then the other, and lets
// each go on later, when its clients have moved: the commands that wait in its sockets must then be refused. Half of the
// clients are hosts of their own, and half are one host, which uses both gateways at once. The history of every block
// must be linearizable.
func TestFaultHistory(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	h := &history{begin: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range historyClients {
		portals := []string{cl.Portals[i%2], cl.Portals[(i+1)%2]}
		c := demo(cl, fmt.Sprintf("history-%d", i), portals...)
		if i >= historyClients/2 {
			c = load.NewClient(initiator.Config{
				Target: cl.Target, LUN: cl.LUN, Name: "iqn.2026-11.dev.ashlar.test:history", ISID: [6]byte{0x80, 0, 0, 1, 0, byte(i)},
			}, portals...)
		}
		wg.Go(func() { h.run(ctx, i, c, portals) })
	}
	// After the first stop all clients are at gateway-2.
	for _, role := range []string{"gateway-1", "gateway-2"} {
		time.Sleep(seconds(t, 3))
		must(t, cl.Signal(role, syscall.SIGSTOP))
		time.Sleep(seconds(t, 6))
		must(t, cl.Signal(role, syscall.SIGCONT))
	}
	time.Sleep(seconds(t, 3))
	cancel()
	wg.Wait()
	for _, e := range h.errors {
		t.Errorf("I/O error: %s", e)
	}
	unknown := 0
	for _, op := range h.ops {
		if op.Output.(outcome).unknown {
			unknown++
		}
	}
	t.Logf("%d operations, %d with an unknown outcome", len(h.ops), unknown)
	if len(h.ops) < 200 {
		t.Errorf("only %d operations: hardly a history", len(h.ops))
	}
	switch porcupine.CheckOperationsTimeout(register, h.ops, 60*time.Second) {
	case porcupine.Illegal:
		t.Error("the history is not linearizable")
	case porcupine.Unknown:
		t.Error("the history could not be checked within 60 s")
	}
}

// TestFaultHistoryModel checks the checker: a stale read, a lost write and a false miscompare are found.
func TestFaultHistoryModel(t *testing.T) {
	op := func(client int, call, ret int64, in step, out outcome) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret}
	}
	w := func(v uint64) step { return step{kind: 'w', new: v} }
	r := step{kind: 'r'}
	for _, c := range []struct {
		name string
		ops  []porcupine.Operation
		want bool
	}{
		{"write then read", []porcupine.Operation{op(0, 0, 1, w(1), outcome{}), op(1, 2, 3, r, outcome{value: 1})}, true},
		{"stale read", []porcupine.Operation{op(0, 0, 1, w(1), outcome{}), op(1, 2, 3, r, outcome{value: 0})}, false},
		{"concurrent read", []porcupine.Operation{op(0, 0, 9, w(1), outcome{}), op(1, 2, 3, r, outcome{value: 0})}, true},
		{"unknown write may land", []porcupine.Operation{op(0, 0, 1000, w(1), outcome{unknown: true}), op(1, 2, 3, r, outcome{value: 1})}, true},
		{"unknown write may be lost", []porcupine.Operation{op(0, 0, 1000, w(1), outcome{unknown: true}), op(1, 2, 3, r, outcome{value: 0})}, true},
		{"unknown write comes and goes", []porcupine.Operation{
			op(0, 0, 1000, w(1), outcome{unknown: true}), op(1, 2, 3, r, outcome{value: 1}), op(1, 4, 5, r, outcome{value: 0}),
		}, false},
		{"false miscompare", []porcupine.Operation{op(0, 0, 1, step{kind: 'c', old: 0, new: 1}, outcome{})}, false},
		{"two swaps", []porcupine.Operation{
			op(0, 0, 9, step{kind: 'c', old: 0, new: 1}, outcome{swapped: true}), op(1, 0, 9, step{kind: 'c', old: 0, new: 2}, outcome{swapped: true}),
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := porcupine.CheckOperations(register, c.ops); got != c.want {
				t.Errorf("linearizable: %v, want %v", got, c.want)
			}
		})
	}
}
