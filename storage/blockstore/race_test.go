package blockstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

type entryOf = extent.Entry

var chunk0 = layout.ChunkID{Volume: 1}

func newRNG(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestConcurrent writes stamped ranges in several copysets while others read and gather, checkpoints run and images are taken:
// each read sees one stamp per range, and the space balances in the end.
func TestConcurrent(t *testing.T) {
	d := newDisk(t)
	s := d.open(t)
	const (
		copysets = 3
		rangeLen = 5*layout.BlockSize + 1024
		ranges   = 40
		writes   = 300
	)
	var owners, others sync.WaitGroup
	var all []*Copyset
	var gathered, exchanged atomic.Int64
	stop := make(chan struct{})
	frozen := make(chan *Frozen, 16)
	for id := range layout.CopysetID(copysets) {
		c := create(t, s, id+1)
		all = append(all, c)
		copies := make(chan *Gathered, 4)
		owners.Add(1)
		go func() {
			defer owners.Done()
			own(t, c, frozen, copies, &exchanged, writes, ranges, rangeLen)
		}()
		others.Go(func() { collect(t, c, copies, &gathered, stop) })
		for i := range 2 {
			others.Add(1)
			go func() {
				defer others.Done()
				watch(t, c, newRNG(uint64(i)), stop, ranges, rangeLen)
			}()
		}
	}
	others.Add(1)
	go func() {
		defer others.Done()
		for f := range frozen {
			if err := s.Commit([]*Frozen{f}); err != nil {
				t.Error(err)
			}
		}
	}()
	owners.Wait()
	close(stop)
	close(frozen)
	others.Wait()
	settled(t, s, all...)
	if gathered.Load() == 0 || exchanged.Load() == 0 {
		t.Errorf("%d stretches were gathered, %d blocks exchanged", gathered.Load(), exchanged.Load())
	}
}

// collect copies a stretch for the owner, useful or not, durable or not, again and again until it is stopped.
func collect(t *testing.T, c *Copyset, copies chan *Gathered, count *atomic.Int64, stop <-chan struct{}) {
	for {
		g := &Gathered{c: c, chunk: chunk0}
		all, _, err := g.look(0)
		if g.from = all; err == nil && len(all) > 0 {
			err = g.copy()
		}
		if err != nil {
			t.Error(err)
		}
		if len(g.from) == 0 {
			g.unpin()
		} else {
			count.Add(1)
		}
		select {
		case copies <- g: // an empty one, too
			continue
		case <-stop:
		}
		if len(g.from) > 0 {
			g.Drop()
		}
		for len(copies) > 0 {
			if g := <-copies; len(g.from) > 0 {
				g.Drop()
			}
		}
		return
	}
}

func own(t *testing.T, c *Copyset, frozen chan<- *Frozen, copies <-chan *Gathered, exchanged *atomic.Int64, writes, ranges, rangeLen int) {
	rng := newRNG(uint64(c.ID()))
	p := make([]byte, rangeLen)
	for i := range writes {
		at := uint32(rng.IntN(ranges) * rangeLen)
		for k := 0; k < rangeLen; k += 8 {
			binary.LittleEndian.PutUint64(p[k:], uint64(i)+1)
		}
		var err error
		if i%17 == 0 {
			err = c.WriteZeroes(chunk0, at, uint32(rangeLen))
		} else {
			err = c.Write(chunk0, at, p, nil)
		}
		if err != nil {
			t.Error(err)
		}
		c.SetApplied(uint64(i), 1)
		if i%3 == 0 {
			if g := <-copies; len(g.from) > 0 {
				n, err := c.Exchange(g)
				if err != nil {
					t.Error(err)
				}
				exchanged.Add(int64(n))
			}
		}
		if i%10 == 0 {
			frozen <- c.Freeze(nil)
		}
		if i%100 == 50 {
			im, err := c.Snapshot(nil)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := im.WriteTo(io.Discard); err != nil && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			im.Close()
		}
	}
}

func watch(t *testing.T, c *Copyset, rng *rand.Rand, stop <-chan struct{}, ranges, rangeLen int) {
	p := make([]byte, rangeLen)
	for {
		select {
		case <-stop:
			return
		default:
		}
		at := uint32(rng.IntN(ranges) * rangeLen)
		if _, err := c.Read(chunk0, at, p, nil); err != nil {
			t.Error(err)
			return
		}
		if !bytes.Equal(p[8:], p[:len(p)-8]) {
			t.Error("a part of a write was seen")
			return
		}
	}
}
