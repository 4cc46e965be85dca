package thirdparty

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// ErrReset ends a copy whose destination was reset.
var ErrReset = errors.New("thirdparty: the destination was reset")

// errAway ends a copy whose source or destination is not there any more.
var errAway = errors.New("thirdparty: a logical unit is not there any more")

// Running is what a command has under way in logical units other than its own. The zero value is for a command that has
// nothing there.
type Running struct{ now atomic.Pointer[copying] }

// copying is one copy into other logical units.
type copying struct {
	cancel context.CancelCauseFunc
	units  []*Unit
}

// Fence makes what the command has under way in other logical units be without effect. It is called after the command's
// context was ended, from any goroutine, and does not block.
func (r *Running) Fence() {
	if c := r.now.Load(); c != nil {
		c.fence()
	}
}

func (c *copying) fence() {
	for _, u := range c.units {
		u.Fence()
	}
}

// begin is called before a command writes to units. The context ends with ctx or when one of them is reset.
func (r *Running) begin(ctx context.Context, units []*Unit) (context.Context, func()) {
	if len(units) == 0 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c := &copying{cancel, units}
	r.now.Store(c)
	for _, u := range units {
		u.Copies.add(c)
	}
	return ctx, func() {
		for _, u := range units {
			u.Copies.remove(c)
		}
		r.now.Store(nil)
		cancel(nil)
	}
}

// Copies are the copies that write to one logical unit and whose commands went to another one. The zero value has none.
type Copies struct {
	mu struct {
		sync.Mutex
		all map[*copying]struct{}
	}
}

func (s *Copies) add(c *copying) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.all == nil {
		s.mu.all = map[*copying]struct{}{}
	}
	s.mu.all[c] = struct{}{}
}

func (s *Copies) remove(c *copying) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.all, c)
}

// Running returns how many there are.
func (s *Copies) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.all)
}

// Reset ends all of them: their commands fail, and nothing of them takes effect later.
func (s *Copies) Reset() {
	s.mu.Lock()
	all := make([]*copying, 0, len(s.mu.all))
	for c := range s.mu.all {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.cancel(ErrReset)
		c.fence()
	}
}
