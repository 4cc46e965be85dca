package multiraft

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// op is one operation of a history: a write of value, or a read that saw it.
type op struct {
	block int
	write bool
	value byte
}

// registers models each block as a register.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byBlock := map[int][]porcupine.Operation{}
		for _, o := range history {
			b := o.Input.(op).block
			byBlock[b] = append(byBlock[b], o)
		}
		var out [][]porcupine.Operation
		for _, h := range byBlock {
			out = append(out, h)
		}
		return out
	},
	Init: func() any { return byte(0) },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(op); in.write {
			return true, in.value
		}
		return output.(byte) == state.(byte), state
	},
}

// TestLinearizable writes and reads a few blocks while messages are lost, leaders are cut off, restarted and moved.
func TestLinearizable(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.CheckpointEvery, cfg.TailEntries = 100*time.Millisecond, 64
	})
	c.found(1, 2, 3)
	c.leader()
	stop := make(chan struct{})
	var mu sync.Mutex
	var history []porcupine.Operation
	begin := time.Now()
	var wg sync.WaitGroup
	for client := range 4 {
		wg.Go(func() {
			h := c.client(client, begin, stop)
			mu.Lock()
			defer mu.Unlock()
			history = append(history, h...)
		})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for range 5 {
		id := layout.ChunkserverID(rng.IntN(3) + 1)
		switch rng.IntN(4) {
		case 0:
			c.net.setDrop(0.1)
			time.Sleep(300 * time.Millisecond)
			c.net.setDrop(0)
		case 1:
			c.net.isolate(id, true)
			time.Sleep(400 * time.Millisecond)
			c.net.isolate(id, false)
		case 2:
			if g := c.group(id); g.Leading() {
				_ = g.Yield(c.ctx())
			}
		case 3:
			c.net.isolate(id, true) // its clients see it go before its disk closes
			time.Sleep(400 * time.Millisecond)
			c.net.isolate(id, false)
			c.net.setDrop(0.05)
		}
		time.Sleep(150 * time.Millisecond)
	}
	c.net.setDrop(0)
	close(stop)
	wg.Wait()
	t.Logf("%d operations", len(history))
	if len(history) < 100 {
		t.Errorf("only %d operations came to an end", len(history))
	}
	if r, _ := porcupine.CheckOperationsVerbose(registers, history, 20*time.Second); r != porcupine.Ok {
		t.Fatalf("the history is %s", r)
	}
	c.equal(1, 2, 3)
}

// client works until stop; each operation of its history ended with an answer, or may take effect at any time.
func (c *cluster) client(n int, begin time.Time, stop chan struct{}) []porcupine.Operation {
	var h []porcupine.Operation
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	for v := byte(n); ; v += 4 {
		o := op{block: rng.IntN(3), write: rng.IntN(2) == 0, value: v}
		call := time.Since(begin)
		var saw byte
		done := false
		cmd := c.command(o.block, o.value)
		for !done {
			select {
			case <-stop:
				if o.write {
					h = append(h, porcupine.Operation{ClientId: n, Input: o, Output: saw, Call: int64(call), Return: int64(time.Hour)})
				}
				return h
			default:
			}
			id := layout.ChunkserverID(rng.IntN(3) + 1)
			if o.write {
				r := c.propose(id, cmd)
				done = r.Status == Done && r.Outcome.Code == copyset.OK
			} else {
				var r Reply
				saw, r = c.read(id, o.block)
				if r.Status == Behind {
					c.propose(id, copyset.Command{Op: copyset.OpRaise, Chunk: layout.ChunkID{Volume: 3}, Initiator: 5, Fence: testFence, Access: 1})
				}
				done = served(r)
			}
		}
		h = append(h, porcupine.Operation{ClientId: n, Input: o, Output: saw, Call: int64(call), Return: int64(time.Since(begin))})
		time.Sleep(time.Millisecond)
	}
}
