package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// outside is where the clients are; the chunkservers are 1 to nodesMax.
const (
	outside  = 0
	nodesMax = 9
)

// network carries packets. Each may be lost, repeated, delayed and overtaken by others.
type network struct {
	w    *world
	rng  *rand.Rand
	cut  [nodesMax + 1][nodesMax + 1]bool // from, to
	loss float64
	dup  float64
	// far is the most that a packet takes beyond latency; one in farEvery takes so long.
	far time.Duration
}

const (
	latency  = 2 * time.Millisecond
	farEvery = 16
)

func (n *network) delay() time.Duration {
	d := 50*time.Microsecond + time.Duration(n.rng.Int64N(int64(latency)))
	if n.far > 0 && n.rng.IntN(farEvery) == 0 {
		d += time.Duration(n.rng.Int64N(int64(n.far)))
	}
	return d
}

// send has f run at the other side, once, never, or twice if that may be. It returns false when the packet is lost at once.
func (n *network) send(from, to int, once bool, f func()) bool {
	st := &n.w.stats
	st.Packets++
	if n.cut[from][to] || n.loss > 0 && n.rng.Float64() < n.loss {
		st.Lost++
		return false
	}
	copies := 1
	if !once && n.dup > 0 && n.rng.Float64() < n.dup {
		st.Doubled++
		copies = 2
	}
	for range copies {
		n.w.After(n.delay(), func() {
			if n.cut[from][to] {
				st.Lost++
				return
			}
			n.w.Note(uint64(from), uint64(to))
			f()
		})
	}
	return true
}

// heal joins everything and loses nothing.
func (n *network) heal() {
	n.cut = [nodesMax + 1][nodesMax + 1]bool{}
	n.loss, n.dup, n.far = 0, 0, 0
}

// port is a chunkserver's way into the network.
type port struct {
	w *world
	l *life
}

func clone(m *raftpb.Message) *raftpb.Message { return proto.Clone(m).(*raftpb.Message) }

// Send implements multiraft.Transport.
func (p *port) Send(to layout.ChunkserverID, msgs []multiraft.Message) {
	if p.l.dead {
		return
	}
	msgs = append([]multiraft.Message(nil), msgs...)
	for _, m := range msgs {
		if id := layout.PeerID(m.Raft.GetFrom()); p.l.node.erased[id] {
			p.w.find("chunkserver %d: peer %d was removed and says %v", p.l.node.id, id, m.Raft.GetType())
		}
	}
	p.w.opts.Bug.sent(p, to, msgs)
	from := p.l.node.id
	ok := p.w.net.send(int(from), int(to), false, func() {
		l := p.w.nodes[to-1].life
		if l == nil || l.host == nil {
			return
		}
		in := make([]multiraft.Message, len(msgs))
		for i, m := range msgs {
			in[i] = m
			in[i].Raft = clone(m.Raft)
		}
		l.host.Deliver(from, in)
		p.w.opts.Bug.received(l, from, msgs)
	})
	if !ok && p.w.net.rng.IntN(4) == 0 {
		l := p.l
		p.w.After(latency, func() {
			if !l.dead {
				l.host.Unreachable(to)
			}
		})
	}
}

// call runs f on another chunkserver and waits for its answer until the timeout; ok is false when none came.
func (w *world) call(from, to int, name string, timeout time.Duration, once bool, f func(l *life)) (ok bool) {
	done := false
	w.net.send(from, to, once, func() {
		l := w.nodes[to-1].life
		if l == nil || l.host == nil {
			return
		}
		w.Spawn(l, name, func() {
			f(l)
			w.net.send(to, from, true, func() { done = true })
		})
	})
	w.Park(func() bool { return done }, w.Clock()+timeout)
	return done
}

// errNoAnswer means that a call was not answered.
var errNoAnswer = errors.New("sim: no answer")

const (
	installTimeout = 5 * time.Second
	readTimeout    = 2 * time.Second
)

// Install implements multiraft.Transport.
func (p *port) Install(ctx context.Context, to layout.ChunkserverID, m multiraft.Message, im *blockstore.Image, sent *atomic.Int64) error {
	var frames [][]byte
	for {
		b, err := im.Next(nil)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		frames = append(frames, b)
		sent.Add(int64(len(b)))
		if p.w.dice.IntN(4) == 0 {
			p.w.Sleep(time.Duration(p.w.dice.Int64N(int64(20 * time.Millisecond))))
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.w.stats.Images++
	var result error
	ok := p.w.call(int(p.l.node.id), int(to), "install", installTimeout, true, func(l *life) {
		result = l.take(m, frames)
	})
	if !ok {
		return errNoAnswer
	}
	return result
}

// take receives an image.
func (l *life) take(m multiraft.Message, frames [][]byte) error {
	w := l.node.w
	l.taking++
	w.After(2*installTimeout, func() { l.taking-- })
	w.Park(func() bool { return l.syncing == 0 }, 0)
	in, err := l.host.ReceiveImage(multiraft.Message{Copyset: m.Copyset, Raft: clone(m.Raft)})
	if err != nil {
		return err
	}
	handed := false
	defer func() { in.Close(handed) }()
	for _, b := range frames {
		if _, err := in.Write(b); err != nil {
			return err
		}
		if w.dice.IntN(4) == 0 {
			w.Sleep(time.Duration(w.dice.Int64N(int64(20 * time.Millisecond))))
		}
	}
	handed = true
	ctx, cancel := context.WithCancel(context.Background())
	w.After(installTimeout, cancel)
	if err = in.Finish(ctx); err == nil {
		w.stats.Installed++
	}
	return err
}

// ReadBlocks implements multiraft.Transport.
func (p *port) ReadBlocks(ctx context.Context, to layout.ChunkserverID, id layout.CopysetID, ch layout.ChunkID, off, length uint32, applied uint64) ([]byte, uint64, error) {
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	var data []byte
	var through uint64
	err := errNoAnswer
	p.w.call(int(p.l.node.id), int(to), "readblocks", readTimeout, true, func(l *life) {
		g := l.host.Group(id)
		if g == nil {
			err = multiraft.ErrNoGroup
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		p.w.After(readTimeout, cancel)
		data, _, through, err = g.ReadBlocks(ctx, ch, off, length, applied)
	})
	return data, through, err
}
