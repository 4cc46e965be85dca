// Package offers keeps the images of one raft group between the moment when raft asks for one and the moment when its
// message comes by:
//
//	Order ──► an image is made ──► Put ──► Take (raft's Snapshot) ──► Claim (by its MsgSnap) ──► sent
//	                                └─ Expire, Drop: nobody wanted it
//
// An image keeps blocks and log: it is not to wait long.
package offers

import (
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
)

// age is how long an image waits for a follower that wants it before its blocks are let go.
const age = 10 * time.Second

// Offer is an image that can be sent.
type Offer struct {
	Image *blockstore.Image
	// Conf is the membership at the image's index.
	Conf *raftpb.ConfState
	// Made is when it was made, on the clock that Expire is told.
	Made time.Duration
}

// Offers are the images of a group: one that was prepared because raft asked for it, and those that raft has taken for a
// MsgSnap which has not come by yet. The zero value is ready; methods may be called from any goroutine.
type Offers struct {
	mu struct {
		sync.Mutex
		ready   *Offer
		ordered bool
		taken   []*Offer
	}
}

// Take returns the prepared image and its membership, nil when there is none. Claim finds it from now on.
func (o *Offers) Take() (*blockstore.Image, *raftpb.ConfState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.ready == nil {
		return nil, nil
	}
	r := o.mu.ready
	o.mu.ready = nil
	o.mu.taken = append(o.mu.taken, r)
	return r.Image, proto.Clone(r.Conf).(*raftpb.ConfState)
}

// Claim returns the taken image of an index, which is the caller's, or nil.
func (o *Offers) Claim(index uint64) *blockstore.Image {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, r := range o.mu.taken {
		if at, _ := r.Image.Applied(); at == index {
			o.mu.taken = append(o.mu.taken[:i], o.mu.taken[i+1:]...)
			return r.Image
		}
	}
	return nil
}

// Order tells whether an image has to be made, which is so until Put ends the order.
func (o *Offers) Order() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := !o.mu.ordered
	o.mu.ordered = true
	return first
}

// Put offers an image in the place of the one before; nil: none could be made. It may wait for the disk, which gets the blocks
// of the one before back; nobody else does.
func (o *Offers) Put(r *Offer) {
	o.mu.Lock()
	old := o.mu.ready
	o.mu.ready, o.mu.ordered = r, false
	o.mu.Unlock()
	old.close()
}

// Expire lets an image go that nobody took. It may wait for the disk, as Put.
func (o *Offers) Expire(now time.Duration) {
	o.mu.Lock()
	old := o.mu.ready
	expired := old != nil && now-old.Made > age
	if expired {
		o.mu.ready = nil
	}
	o.mu.Unlock()
	if expired {
		old.close()
	}
}

// Drop lets the prepared image go. It may wait for the disk, as Put.
func (o *Offers) Drop() {
	o.mu.Lock()
	old := o.mu.ready
	o.mu.ready = nil
	o.mu.Unlock()
	old.close()
}

func (r *Offer) close() {
	if r != nil {
		r.Image.Close()
	}
}

// Pin returns the lowest index that an image stands for, whose followers will need the log behind it; ok is false when
// there is none.
func (o *Offers) Pin() (index uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.mu.taken
	if o.mu.ready != nil {
		all = append(all[:len(all):len(all)], o.mu.ready)
	}
	for _, r := range all {
		if at, _ := r.Image.Applied(); !ok || at < index {
			index, ok = at, true
		}
	}
	return index, ok
}
