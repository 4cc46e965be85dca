package chunkclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// backoffMin and backoffMax bound the pause before a request is tried again, doubled each time, with jitter.
	backoffMin, backoffMax = 2 * time.Millisecond, 200 * time.Millisecond
	// hintsMax is how many "ask X" answers are followed without a pause.
	hintsMax = 3
)

// Options tune a Router. The zero value of a field means its default.
type Options struct {
	// Attempt is how long one chunkserver has to answer before another one is asked; default 1.5 s.
	Attempt time.Duration
	// Cluster is the cluster's id; chunkservers of another cluster refuse us.
	Cluster []byte
	// Dial makes the link to a chunkserver's address; default is one over a stream. Tests replace it.
	Dial func(address string) (Link, error)
}

// Directory says where copysets are.
type Directory struct {
	// Members are the chunkservers that hold a voting peer of each copyset.
	Members map[layout.CopysetID][]layout.ChunkserverID
	// Addresses are the chunkservers' HOST:PORT.
	Addresses map[layout.ChunkserverID]string
}

// Router sends requests to the leaders of copysets.
type Router struct {
	opts Options
	mu   struct {
		sync.RWMutex
		dir     Directory
		leaders map[layout.CopysetID]layout.ChunkserverID
		links   map[layout.ChunkserverID]*link
		closed  bool
	}
}

type link struct {
	Link
	address string
}

// NewRouter returns a router that knows no copyset yet.
func NewRouter(opts Options) *Router {
	if opts.Attempt == 0 {
		opts.Attempt = 1500 * time.Millisecond
	}
	r := &Router{opts: opts}
	if opts.Dial == nil {
		r.opts.Dial = r.dial
	}
	r.mu.leaders = map[layout.CopysetID]layout.ChunkserverID{}
	r.mu.links = map[layout.ChunkserverID]*link{}
	return r
}

// SetDirectory replaces what the router knows. It keeps d; the caller must not change it any more.
func (r *Router) SetDirectory(d Directory) {
	r.mu.Lock()
	var old []*link
	r.mu.dir = d
	for id, l := range r.mu.links {
		if d.Addresses[id] != l.address {
			old = append(old, l)
			delete(r.mu.links, id)
		}
	}
	r.mu.Unlock()
	for _, l := range old {
		l.Close()
	}
}

// Close ends all calls.
func (r *Router) Close() {
	r.mu.Lock()
	links := r.mu.links
	r.mu.links = nil
	r.mu.closed = true
	r.mu.Unlock()
	for _, l := range links {
		l.Close()
	}
}

// route returns the link to the chunkserver to ask about a copyset: the leader if known, else a member by turn.
func (r *Router) route(id layout.CopysetID, turn int) (*link, layout.ChunkserverID, error) {
	r.mu.RLock()
	cs, known := r.mu.leaders[id]
	members := r.mu.dir.Members[id]
	if !known && len(members) > 0 {
		cs = members[turn%len(members)]
	}
	l := r.mu.links[cs]
	address := r.mu.dir.Addresses[cs]
	closed := r.mu.closed
	r.mu.RUnlock()
	switch {
	case closed:
		return nil, 0, ErrClosed
	case l != nil:
		return l, cs, nil
	case cs == 0:
		return nil, 0, fmt.Errorf("chunkclient: copyset %d is not known", id)
	case address == "":
		return nil, cs, fmt.Errorf("chunkclient: no address of chunkserver %d is known", cs)
	}
	made, err := r.opts.Dial(address)
	if err != nil {
		return nil, cs, err
	}
	r.mu.Lock()
	if other := r.mu.links[cs]; other != nil || r.mu.closed {
		r.mu.Unlock()
		made.Close()
		if other == nil {
			return nil, 0, ErrClosed
		}
		return other, cs, nil
	}
	l = &link{Link: made, address: address}
	r.mu.links[cs] = l
	r.mu.Unlock()
	return l, cs, nil
}

// setLeader remembers cs as the leader of id; 0 forgets a leader that was wrong.
func (r *Router) setLeader(id layout.CopysetID, was, cs layout.ChunkserverID) {
	r.mu.RLock()
	cur := r.mu.leaders[id]
	r.mu.RUnlock()
	if cur == cs || (cs == 0 && cur != was) {
		return
	}
	r.mu.Lock()
	if cs == 0 {
		delete(r.mu.leaders, id)
	} else {
		r.mu.leaders[id] = cs
	}
	r.mu.Unlock()
}

// Attempt is a request on its way: the state of its repetitions.
type Attempt struct {
	router  *Router
	call    *Call
	cs      layout.ChunkserverID
	turn    int
	hints   int
	backoff time.Duration
	err     error
	open    bool
}

// Open tells whether a request that was repeated may have taken effect, or may yet: it got no answer, or one that leaves it open.
func (a *Attempt) Open() bool { return a.open }

// Begin sends req for the first time. dst takes the data of a read. End must follow.
func (r *Router) Begin(a *Attempt, req *Request, dst []byte) {
	*a = Attempt{router: r, backoff: backoffMin}
	a.start(req, dst)
}

func (a *Attempt) start(req *Request, dst []byte) {
	a.call = NewCall()
	a.call.Request, a.call.Dst = *req, dst
	l, cs, err := a.router.route(req.Copyset, a.turn)
	a.cs = cs
	if err != nil {
		a.call.finish(func(c *Call) { c.Err = err })
		return
	}
	l.Start(a.call)
}

// End waits for the answer, repeating the request as often as it takes, and returns it. It returns an error when ctx
// ended, stop was closed (ErrStopped) or the router was closed; whether a mutation took effect is then not known. again,
// if not nil, is asked before each repetition, changes what has to change in the request, and ends the attempts with
// its error.
func (a *Attempt) End(ctx context.Context, stop <-chan struct{}, again func(*Request) error) (Response, error) {
	for {
		resp, answered, err := a.wait(ctx, stop)
		if err != nil {
			return Response{}, err
		}
		if answered {
			return resp, nil
		}
		req, dst := a.call.Request, a.call.Dst
		if err := a.pause(ctx, stop); err != nil {
			return Response{}, err
		}
		if again != nil {
			if err := again(&req); err != nil {
				return Response{}, err
			}
		}
		a.start(&req, dst)
	}
}

// Do is Begin and End.
func (r *Router) Do(ctx context.Context, req *Request, dst []byte) (Response, error) {
	var a Attempt
	r.Begin(&a, req, dst)
	return a.End(ctx, nil, nil)
}

// wait waits for one answer. answered is false when the request has to be repeated.
func (a *Attempt) wait(ctx context.Context, stop <-chan struct{}) (resp Response, answered bool, err error) {
	c := a.call
	if over, err := a.await(ctx, stop); !over {
		return Response{}, false, err
	}
	if c.Err == nil {
		return a.judge(c)
	}
	if errors.Is(c.Err, ErrClosed) && a.router.isClosed() {
		return Response{}, false, ErrClosed
	}
	a.err, a.open = c.Err, true
	a.router.setLeader(c.Request.Copyset, a.cs, 0)
	a.turn++
	return Response{}, false, nil
}

// await waits until the call is over, or gives it up: with an error for good, without one to try elsewhere.
func (a *Attempt) await(ctx context.Context, stop <-chan struct{}) (over bool, err error) {
	c := a.call
	select {
	case <-c.done:
		return true, nil
	default:
	}
	late := c.within(a.router.opts.Attempt)
	defer c.timer.Stop()
	select {
	case <-c.done:
		return true, nil
	case <-ctx.Done():
		err = fmt.Errorf("chunkclient: copyset %d: %w (last: %w)", c.Request.Copyset, context.Cause(ctx), a.last())
	case <-stop:
		err = ErrStopped
	case <-late:
	}
	if !c.Forget() {
		<-c.done
		return true, nil
	}
	// The forgotten call may still be in the link's hands: go on with a copy.
	a.call = &Call{Request: c.Request, Dst: c.Dst, done: make(chan struct{}, 1)}
	if err == nil {
		a.err, a.open = fmt.Errorf("chunkserver %d did not answer within %v", a.cs, a.router.opts.Attempt), true
		a.router.setLeader(c.Request.Copyset, a.cs, 0)
		a.turn++
	}
	return false, err
}

func (r *Router) isClosed() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.mu.closed
}

// judge decides whether an answer is final.
func (a *Attempt) judge(c *Call) (Response, bool, error) {
	id := c.Request.Copyset
	switch c.Response.Status {
	case NotLeader:
		a.err = fmt.Errorf("chunkserver %d does not lead copyset %d", a.cs, id)
		a.router.setLeader(id, a.cs, c.Response.Leader)
		if c.Response.Leader != 0 && c.Response.Leader != a.cs && a.hints < hintsMax {
			a.hints++
			a.backoff = 0
		}
		a.turn++
		return Response{}, false, nil
	case NoSuchCopyset:
		a.err = fmt.Errorf("chunkserver %d has no peer of copyset %d", a.cs, id)
		a.router.setLeader(id, a.cs, 0)
		a.turn++
		return Response{}, false, nil
	case Busy, NotReady:
		a.open = a.open || c.Response.Status == NotReady
		a.err = fmt.Errorf("chunkserver %d: copyset %d: %s", a.cs, id, c.Response.Message)
		return Response{}, false, nil
	case IO:
		a.open = true
		a.err = fmt.Errorf("chunkserver %d: copyset %d: disk: %s", a.cs, id, c.Response.Message)
		a.router.setLeader(id, a.cs, 0)
		a.turn++
		return Response{}, false, nil
	}
	a.router.setLeader(id, a.cs, a.cs)
	resp := c.Response
	c.Release()
	a.call = nil
	return resp, true, nil
}

func (a *Attempt) pause(ctx context.Context, stop <-chan struct{}) error {
	if a.backoff == 0 {
		a.backoff = backoffMin
		return nil
	}
	d := a.backoff/2 + rand.N(a.backoff)
	a.backoff = min(2*a.backoff, backoffMax)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-stop:
		return ErrStopped
	case <-ctx.Done():
		return fmt.Errorf("chunkclient: %w (last: %w)", context.Cause(ctx), a.last())
	}
}

func (a *Attempt) last() error {
	if a.err == nil {
		return errors.New("no answer yet")
	}
	return a.err
}
