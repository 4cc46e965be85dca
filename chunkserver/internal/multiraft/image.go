package multiraft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copies"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/offers"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// imageQueueMax bounds the images that wait to be sent.
const imageQueueMax = 64

// Transfer is an image on its way to a peer.
type Transfer struct {
	Peer layout.PeerID
	// Total is the size of the content when the transfer began, in bytes; Sent is how much of it has gone.
	Total int64
	Sent  atomic.Int64
}

func (g *Group) orderImage() {
	if g.offers.Order() {
		g.ap.post(task{g: g, kind: taskImage})
	}
}

// image prepares an image for raft's next Snapshot call.
func (a *applier) image(g *Group) {
	p := &g.app
	if p.dead || p.med.Ahead() {
		g.offers.Put(nil)
		return
	}
	im, err := p.med.Content().Snapshot(p.state.Marshal())
	if err != nil {
		g.offers.Put(nil)
		g.host.event("image not made", g, err)
		return
	}
	g.offers.Put(&offers.Offer{Image: im, Conf: p.state.Members().Conf, Made: a.host.now()})
}

// imageJob is an image to send.
type imageJob struct {
	g  *Group
	to layout.ChunkserverID
	m  *raftpb.Message
	im *blockstore.Image
}

// sendImage queues the image that belongs to a MsgSnap.
func (h *Host) sendImage(g *Group, m *raftpb.Message, to layout.ChunkserverID) {
	im := g.offers.Claim(m.GetSnapshot().GetMetadata().GetIndex())
	err := errors.New("multiraft: no image, or nobody to send it to")
	if im != nil && to != 0 {
		select {
		case h.images <- imageJob{g, to, m, im}:
			return
		default:
			err = errors.New("multiraft: too many images wait")
		}
	}
	if im != nil {
		im.Close()
	}
	g.w.post(event{g: g, kind: evSnapStatus, peer: layout.PeerID(m.GetTo()), err: err})
}

// runImages sends images until ctx ends.
func (h *Host) runImages(ctx context.Context) {
	for {
		j, err := sched.Recv(ctx, h.clock, h.images, nil)
		if err != nil {
			return
		}
		h.sendOne(ctx, j)
	}
}

func (h *Host) sendOne(ctx context.Context, j imageJob) {
	defer j.im.Close()
	t := &Transfer{Peer: layout.PeerID(j.m.GetTo())}
	for _, n := range j.g.store.Load().Usage() {
		t.Total += n
	}
	j.g.sending.Store(t)
	index, _ := j.im.Applied()
	j.g.tail.Hold(index)
	err := h.cfg.Transport.Install(ctx, j.to, Message{Copyset: j.g.id, Raft: j.m}, j.im, &t.Sent)
	j.g.tail.Release(index)
	j.g.sending.CompareAndSwap(t, nil)
	h.event("image sent", j.g, err)
	var damaged *blockstore.ChecksumError
	if errors.As(err, &damaged) {
		repair := func(e *blockstore.ChecksumError) error { return h.Repair(ctx, j.g, e) }
		h.event("damage repaired that an image met", j.g, copies.Mend(j.g.store.Load(), damaged, repair))
	}
	j.g.w.post(event{g: j.g, kind: evSnapStatus, peer: t.Peer, err: err})
}

// incoming is an image that comes in.
type incoming struct {
	msg  *raftpb.Message
	inst *blockstore.Installer
	once sync.Once
	done chan error
}

// finish tells the sender how it ended; the image's blocks are given back unless it is in place.
func (in *incoming) finish(err error) {
	in.once.Do(func() {
		in.inst.Abort()
		in.done <- err
	})
}

// Incoming takes an image from another chunkserver. It is used by one goroutine.
type Incoming struct {
	g  *Group
	in *incoming
}

// ReceiveImage begins to take the image that belongs to m, a MsgSnap.
func (h *Host) ReceiveImage(m Message) (*Incoming, error) {
	g := h.Group(m.Copyset)
	if g == nil || m.Raft.GetType() != raftpb.MsgSnap || m.Raft.GetTo() != uint64(g.peer) {
		return nil, ErrNoGroup
	}
	if m.Raft.GetSnapshot().GetMetadata().GetIndex() <= g.Applied() {
		g.w.post(event{g: g, kind: evMessage, msg: m.Raft}) // raft tells the leader, who has lost the answer to an earlier one
		return nil, fmt.Errorf("multiraft: copyset %d has applied more than the image", g.id)
	}
	if h.receiving.Add(1) > int64(2*h.cfg.SnapshotsMax) {
		h.receiving.Add(-1)
		return nil, errors.New("multiraft: too many images come in")
	}
	inst, err := h.cfg.Store.NewInstaller(m.Copyset)
	if err != nil {
		h.receiving.Add(-1)
		return nil, err
	}
	return &Incoming{g: g, in: &incoming{msg: m.Raft, inst: inst, done: make(chan error, 1)}}, nil
}

// Write takes the next bytes of the image; they are not kept.
func (r *Incoming) Write(p []byte) (int, error) { return r.in.inst.Write(p) }

// Finish hands the whole image to raft and waits until it is in place, or not wanted (nil too: the log has what it
// would bring).
func (r *Incoming) Finish(ctx context.Context) error {
	r.g.w.post(event{g: r.g, kind: evImage, image: r.in})
	return r.g.host.await(ctx, r.in.done)
}

// Close ends the transfer; what was not handed over is dropped.
func (r *Incoming) Close(handed bool) {
	if !handed {
		r.in.inst.Abort()
	}
	r.g.host.receiving.Add(-1)
}

// receive tells raft of an image.
func (w *worker) receive(g *Group, ev *event) {
	n := &g.node
	if n.image != nil {
		ev.image.finish(errors.New("multiraft: another image is being installed"))
		return
	}
	n.image = ev.image
	_ = n.raw.Step(ev.image.msg) // refuseImage sees whether raft took it
}

// refuseImage drops an image that raft did not want.
func (w *worker) refuseImage(g *Group) {
	n := &g.node
	if n.image != nil && !n.installing {
		n.image.finish(nil)
		n.image = nil
	}
}

// installed lets the appends go that waited for the image.
func (w *worker) installed(g *Group) {
	n := &g.node
	n.image.finish(nil)
	n.image, n.installing = nil, false
	for _, r := range n.held {
		w.host.write(r)
	}
	n.held = nil
}
