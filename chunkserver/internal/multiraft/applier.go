package multiraft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/medium"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sideload"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// retryEvery is how often an entry that could not be applied is tried again.
const retryEvery = time.Second

type taskKind uint8

const (
	taskApply   taskKind = iota // msg
	taskInstall                 // image
	taskFreeze                  // frozen
	taskImage                   // prepare an image to send
	taskOwn                     // own, reply
	taskReplace                 // chunk, off, data, upTo, through, reply
	taskRetry                   // go on with what could not be applied
	taskStop                    // reply: the applier is done with the group
)

type task struct {
	g      *Group
	kind   taskKind
	msg    *raftpb.Message
	from   int  // of msg's entries: the first that is not applied
	held   bool // they stay in the log
	image  *incoming
	frozen func(*blockstore.Frozen)
	own    func(*blockstore.Copyset) error
	chunk  layout.ChunkID
	off    uint32
	data   []byte
	// Every entry up to upTo is in data, none behind through.
	upTo, through uint64
	reply         chan error
}

// app is what an applier keeps of a group.
type app struct {
	state *copyset.State
	med   *medium.Medium
	// While an entry can not be applied, it and what follows waits here.
	waiting []task
	blocked bool
	dead    bool
}

// applier applies the entries of its groups, in order, and owns their content.
type applier struct {
	host *Host
	mu   struct {
		sync.Mutex
		queue []task
	}
	bell *sched.Bell

	// Owned by Run.
	spare   []task
	blocked []*Group // by copyset
	retried time.Duration
}

func newApplier(h *Host) *applier {
	return &applier{host: h, bell: h.clock.NewBell()}
}

func (a *applier) post(t task) {
	a.mu.Lock()
	a.mu.queue = append(a.mu.queue, t)
	first := len(a.mu.queue) == 1
	a.mu.Unlock()
	if first {
		a.bell.Ring()
	}
}

// Run serves until ctx ends.
func (a *applier) Run(ctx context.Context) {
	for {
		a.mu.Lock()
		tasks := a.mu.queue
		a.mu.queue = a.spare[:0]
		a.mu.Unlock()
		for i := range tasks {
			a.do(&tasks[i])
		}
		clear(tasks)
		a.spare = tasks
		switch {
		case len(tasks) > 0:
			continue
		case ctx.Err() != nil:
			return
		case a.host.clock.Now()-a.retried >= retryEvery:
			a.retried = a.host.clock.Now()
			for _, g := range slices.Clone(a.blocked) {
				a.retry(g)
			}
		}
		a.bell.Wait(ctx, a.retried+retryEvery)
	}
}

// unblock takes a group from those that are tried again.
func (a *applier) unblock(g *Group) {
	a.blocked = slices.DeleteFunc(a.blocked, func(o *Group) bool { return o == g })
}

func (a *applier) do(t *task) {
	g := t.g
	p := &g.app
	switch t.kind {
	case taskApply, taskInstall:
		switch {
		case p.dead:
			if t.image != nil {
				t.image.finish(ErrStopped)
			}
		case p.blocked:
			p.waiting = append(p.waiting, *t)
		default:
			a.enter(t)
		}
	case taskFreeze:
		if p.dead || p.med.Ahead() {
			t.frozen(nil)
			return
		}
		t.frozen(p.med.Content().Freeze(p.state.Marshal()))
	case taskImage:
		a.image(g)
	case taskOwn:
		err := ErrStopped
		if !p.dead {
			err = t.own(p.med.Content())
		}
		t.reply <- err
	case taskReplace:
		t.reply <- a.replace(t)
	case taskRetry:
		a.retry(g)
	case taskStop:
		p.dead, p.waiting = true, nil
		a.unblock(g)
		t.reply <- nil
	}
}

// enter applies a task's entries or installs its image; what it could not do waits.
func (a *applier) enter(t *task) {
	if t.kind == taskInstall {
		a.install(t)
		return
	}
	g, entries := t.g, t.msg.GetEntries()
	for ; t.from < len(entries); t.from++ {
		if err := a.entry(g, entries[t.from]); err != nil {
			// raft does not hear of a part of them, and may look at any that it does not know to be applied.
			if !t.held {
				t.held = true
				g.tail.Hold(entries[0].GetIndex() - 1)
			}
			a.block(t, err)
			return
		}
	}
	if t.held {
		g.tail.Release(entries[0].GetIndex() - 1)
	}
	for _, resp := range t.msg.GetResponses() {
		g.w.post(event{g: g, kind: evLocal, msg: resp})
	}
}

// entry applies one entry, publishes what changed, and only then answers.
func (a *applier) entry(g *Group, e *raftpb.Entry) error {
	p := &g.app
	p.med.Begin(e.GetIndex(), sideload.BlocksOf(g.log.Extents(e.GetIndex(), e.GetTerm())))
	var res copyset.Result
	switch e.GetType() {
	case raftpb.EntryNormal:
		var err error
		if res, err = p.state.Apply(e.GetIndex(), e.GetTerm(), e.GetData(), p.med); err != nil {
			return err
		}
	default:
		if err := a.change(g, e); err != nil {
			return err
		}
	}
	p.med.End(e.GetIndex(), e.GetTerm())
	if res.Digest {
		a.digest(g)
	}
	if v := p.state.View(); v != g.view.Load() {
		g.view.Store(v)
	}
	g.applied.Store(e.GetIndex())
	if res.Proposer == g.peer {
		if prop := g.proposals.Take(res.Proposal); prop != nil {
			g.proposals.Finish(prop, Reply{Status: Done, Outcome: res.Outcome})
		}
	}
	return nil
}

// digest passes a view of the content on, unless some block of it is newer than it should be.
func (a *applier) digest(g *Group) {
	p := &g.app
	if a.host.cfg.Digest == nil || p.med.Ahead() {
		return
	}
	im, err := p.med.Content().Snapshot(p.state.Marshal())
	if err != nil {
		a.host.event("no view for a digest", g, err)
		return
	}
	a.host.cfg.Digest(g.id, g.peer, im)
}

// change applies a configuration change. raft's node gets it from the worker, before it hears that it was applied.
func (a *applier) change(g *Group, e *raftpb.Entry) error {
	cc := &raftpb.ConfChangeV2{}
	if e.GetType() != raftpb.EntryConfChangeV2 {
		return fmt.Errorf("%w: entry type %v", copyset.ErrVersion, e.GetType())
	}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return fmt.Errorf("multiraft: configuration change: %w", err)
	}
	ok, err := g.app.state.ApplyChange(e.GetIndex(), e.GetTerm(), cc)
	if err != nil || !ok {
		return err
	}
	m := g.app.state.Members()
	g.members.Store(m)
	g.offers.Drop() // their configuration is not the one that the receiver needs
	g.w.post(event{g: g, kind: evConf, conf: cc, members: m})
	g.host.event("members changed", g, nil)
	return nil
}

// block keeps a task that failed. No space and a damaged block can be overcome; anything else ends the group.
func (a *applier) block(t *task, err error) {
	g := t.g
	p := &g.app
	var damaged *blockstore.ChecksumError
	switch {
	case errors.Is(err, blockstore.ErrNoSpace):
		a.host.checkpoints.Kick()
	case errors.As(err, &damaged):
		a.host.repairs.order(g, damaged)
	default:
		p.dead, p.waiting = true, nil
		g.w.post(event{g: g, kind: evFail, err: err})
		return
	}
	if !p.blocked {
		g.w.post(event{g: g, kind: evBlocked, err: err})
		g.host.event("copyset blocked", g, err)
	}
	p.blocked = true
	p.waiting = append([]task{*t}, p.waiting...)
	g.blocked.Store(&err)
	if !slices.Contains(a.blocked, g) {
		a.blocked = insert(a.blocked, g)
	}
}

// retry goes on with what waits.
func (a *applier) retry(g *Group) {
	p := &g.app
	if !p.blocked || p.dead {
		return
	}
	tasks := p.waiting
	p.waiting, p.blocked = nil, false
	for i := range tasks {
		a.do(&tasks[i])
	}
	if !p.blocked {
		g.blocked.Store(nil)
		a.unblock(g)
	}
}

// install puts an image in place of the content.
func (a *applier) install(t *task) {
	g := t.g
	err := g.use(t.image.inst.Finish())
	if err != nil {
		g.app.dead = true
		g.w.post(event{g: g, kind: evFail, err: fmt.Errorf("multiraft: image: %w", err)})
		return
	}
	g.w.post(event{g: g, kind: evInstalled, members: g.members.Load()})
	g.host.event("image installed", g, nil)
}

// use makes cs the content of the group, and what it holds its state.
func (g *Group) use(cs *blockstore.Copyset, err error) error {
	if err != nil {
		return err
	}
	st := copyset.New(nil, 0, 0)
	if b := cs.State(); len(b) > 0 {
		if st, err = copyset.Unmarshal(b); err != nil {
			return err
		}
	}
	index, _ := st.Applied()
	if at, _ := cs.Applied(); at != index {
		return fmt.Errorf("multiraft: copyset %d: state of index %d with data of %d", g.id, index, at)
	}
	g.app.state, g.app.med = st, medium.New(cs)
	g.store.Store(cs)
	g.members.Store(st.Members())
	g.view.Store(st.View())
	g.applied.Store(index)
	return nil
}

// replace puts another peer's copy in place of a damaged block; reads wait until what it may hold is applied.
func (a *applier) replace(t *task) error {
	p := &t.g.app
	if p.dead {
		return ErrStopped
	}
	bar := func() { t.g.floor.Store(max(t.g.floor.Load(), t.through)) }
	return p.med.Replace(t.chunk, t.off, t.data, t.upTo, t.through, bar)
}
