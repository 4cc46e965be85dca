package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/digest"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/loop"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// world is everything that is simulated. One goroutine at a time is in it.
type world struct {
	*loop.Loop
	opts    Options
	dying   []*life
	dice    *rand.Rand // faults
	net     *network
	nodes   []*node
	clients []*client
	duels   int
	err     error // the first finding
	stats   Stats
	lull    time.Duration // until then the clients rest
	quiet   bool          // no faults any more
	over    bool          // what crashes stays down
	sets    []*set
	wanted  int             // counts the changes of what peers there are to be
	ctx     context.Context //nolint:containedctx // never ends
	values  uint32
	// digests are those of each replica at each index that was compared.
	digests map[moment]map[layout.PeerID]*digest.Result
	epochs  map[layout.InitiatorID]layout.Epoch // the newest of each client
	fresh   layout.Seq                          // of bugs that make up sequence numbers
	logf    func(format string, args ...any)
}

// stream numbers the independent sources of chance of a seed.
type stream uint64

const (
	streamChoose stream = iota + 1
	streamDice
	streamNetwork
	streamPlan
	streamClient
	streamDisk
)

func (w *world) rand(s stream, n uint64) *rand.Rand {
	return rand.New(rand.NewPCG(w.opts.Seed, uint64(s)<<32|n))
}

// find reports a broken promise. The first is kept.
func (w *world) find(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: "+format, append([]any{w.Now}, args...)...)
		w.Halt()
		w.say("FOUND %v", w.err)
		w.show()
	}
}

// wrong takes what the loop finds.
func (w *world) wrong(err error) {
	var p *loop.PanicError
	if errors.As(err, &p) {
		w.say("%s", p.Stack)
	}
	w.find("%w", err)
}

// show tells the state of all peers.
func (w *world) show() {
	if w.logf == nil {
		return
	}
	for _, n := range w.nodes {
		if n.life == nil || n.life.host == nil {
			w.say("chunkserver %d is down", n.id)
			continue
		}
		for _, r := range n.life.host.Reports() {
			last := uint64(0)
			if lg, ok := n.life.log.Group(r.Copyset); ok {
				last, _ = lg.LastIndex() // 0 when it can not be told
			}
			w.say("chunkserver %d: copyset %d peer %d term %d leader %d applied %d commit %d last %d match %v members %v: %v",
				n.id, r.Copyset, r.Peer, r.Term, r.LeaderPeer, r.Applied, r.Commit, last, r.Match, r.Members.Conf, r.Err)
		}
	}
}

func (w *world) say(format string, args ...any) {
	if w.logf != nil {
		w.logf("%9.4f "+format, append([]any{w.Now.Seconds()}, args...)...)
	}
}

// bury ends what the chunkservers that crashed have left.
func (w *world) bury() {
	for len(w.dying) > 0 {
		l := w.dying[0]
		w.dying = w.dying[1:]
		w.End(l)
		if !w.Broken {
			l.close()
		}
	}
}

// finish ends all tasks.
func (w *world) finish() {
	for _, n := range w.nodes {
		if n.life != nil {
			n.life.fall()
		}
	}
	w.bury()
	w.Close()
}

// lifeScheduler is how the goroutines of a chunkserver run.
type lifeScheduler struct{ l *life }

func (s lifeScheduler) Now() time.Duration { return s.l.Clock() }
func (s lifeScheduler) Go(f func())        { s.l.node.w.Spawn(s.l, taskHost, f) }
func (s lifeScheduler) Park(ready func() bool, until time.Duration) {
	s.l.node.w.Park(ready, until)
}

// waiter is who waits for a proposal.
type waiter struct {
	done  bool
	reply multiraft.Reply
}

// Done implements multiraft.Waiter.
func (a *waiter) Done(r multiraft.Reply) { a.done, a.reply = true, r }
