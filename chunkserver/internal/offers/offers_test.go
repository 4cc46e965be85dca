package offers

import (
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// store is a replica's content on a disk that may be slow to take blocks back.
type store struct {
	t    *testing.T
	s    *blockstore.Store
	c    *blockstore.Copyset
	n    uint32
	hole func() // called when blocks are given back, if it is not nil
}

func newStore(t *testing.T) *store {
	t.Helper()
	x := &store{t: t}
	fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpPunchHole && x.hole != nil {
			x.hole()
		}
		return vfs.Fault{}
	})
	var err error
	x.s, err = blockstore.Open(fs, "store", blockstore.Identity{Cluster: [16]byte{1}, Chunkserver: 1},
		blockstore.Options{IndexFS: pebblevfs.NewMem(), GrowStep: 4 << 20, Capacity: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.s.Close() })
	if x.c, err = x.s.Create(7); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *store) checkpoint() {
	x.t.Helper()
	if err := x.s.Commit([]*blockstore.Frozen{x.c.Freeze([]byte{1})}); err != nil {
		x.t.Fatal(err)
	}
}

// offer returns an image that is all that still has some blocks.
func (x *store) offer(made time.Duration) *Offer {
	x.t.Helper()
	const length = 4 << 20
	at := layout.ChunkID{Volume: 1, Index: x.n}
	x.n++
	if err := x.c.Write(at, 0, make([]byte, length), nil); err != nil {
		x.t.Fatal(err)
	}
	x.checkpoint()
	im, err := x.c.Snapshot([]byte{1})
	if err != nil {
		x.t.Fatal(err)
	}
	if err := x.c.Discard(at, 0, length); err != nil {
		x.t.Fatal(err)
	}
	x.checkpoint()
	return &Offer{Image: im, Conf: &raftpb.ConfState{}, Made: made}
}

// TestNobodyWaits: what lets an image go gives its blocks back to the disk, and while that does not take them nobody waits
// who asks for something else.
func TestNobodyWaits(t *testing.T) {
	for name, let := range map[string]func(*Offers){
		"put":    func(o *Offers) { o.Put(nil) },
		"expire": func(o *Offers) { o.Expire(age + 1) },
		"drop":   func(o *Offers) { o.Drop() },
	} {
		x, holes := newStore(t), 0
		var o Offers
		o.Put(x.offer(0))
		x.hole = func() {
			if holes++; !o.mu.TryLock() {
				t.Errorf("%s: blocks are given back under the lock", name)
				return
			}
			o.mu.Unlock()
		}
		if _, ok := o.Pin(); !ok {
			t.Fatal("no image")
		}
		let(&o)
		if _, ok := o.Pin(); ok || holes == 0 {
			t.Errorf("%s: it is still there, or gave nothing back (%d holes)", name, holes)
		}
	}
}

// TestOffers: an image is there from Put to Claim, and no longer than it may wait for somebody who wants it.
func TestOffers(t *testing.T) {
	x := newStore(t)
	var o Offers
	if im, _ := o.Take(); im != nil || !o.Order() || o.Order() {
		t.Error("ordered twice, or there before")
	}
	o.Put(x.offer(5))
	o.Expire(5 + age)
	im, conf := o.Take()
	if im == nil || conf == nil {
		t.Fatal("it was let go too early")
	}
	o.Expire(5 + 2*age)
	o.Drop()
	index, ok := o.Pin()
	if at, _ := im.Applied(); !ok || at != index {
		t.Errorf("the log is kept from %d on, %v", index, ok)
	}
	if o.Claim(index+1) != nil || o.Claim(index) != im || o.Claim(index) != nil {
		t.Error("it is not for the message of its index, once")
	}
	im.Close()
	if _, ok := o.Pin(); ok || !o.Order() {
		t.Error("it is still there, or no other can be ordered")
	}
	o.Put(nil)
	o.Put(x.offer(7))
	if o.Expire(8 + age); !o.Order() {
		t.Error("no other can be ordered")
	}
	if im, _ := o.Take(); im != nil {
		t.Error("it was not let go")
	}
}
