package namespace

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Limits of telling copysets.
const (
	// raiseBatch is how many volumes one transaction raises besides what it is about.
	raiseBatch = 80
	// raiseVolumes is how many volumes are worked on at once, raiseCopysets how many copysets of each.
	raiseVolumes, raiseCopysets = 16, 16
	// raiseAttempt bounds asking one copyset once.
	raiseAttempt = 3 * time.Second
)

// raising is a volume with copysets that have to be told something.
type raising struct {
	access layout.AccessGeneration
	// done is closed when no copyset is left.
	done    chan struct{}
	running bool
}

// setRaisingLocked follows a volume's record.
func (n *Namespace) setRaisingLocked(v *VolumeRecord) {
	r := n.mu.raising[v.ID]
	pending := len(v.Pending) > 0 || v.Deleting
	switch {
	case pending && r == nil:
		n.mu.raising[v.ID] = &raising{access: v.Access, done: make(chan struct{})}
	case pending:
		r.access = v.Access
	case r != nil:
		close(r.done)
		delete(n.mu.raising, v.ID)
	}
}

// raise puts the next access generation of volumes into x, to be told to all their copysets.
func (n *Namespace) raise(x *tx, volumes []layout.VolumeID) {
	for _, id := range volumes {
		old := n.mu.volumes[id]
		if old == nil || old.Deleting {
			continue
		}
		next := *old
		next.Access++
		next.Pending = old.copysets()
		n.putVolume(x, &next)
	}
}

// await waits until the copysets of volumes were told, RaiseWait at most. What is left then goes on in the background.
func (n *Namespace) await(ctx context.Context, volumes ...layout.VolumeID) {
	n.wake()
	if n.o.Raiser == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.o.RaiseWait)
	defer cancel()
	for _, id := range volumes {
		n.mu.RLock()
		r := n.mu.raising[id]
		n.mu.RUnlock()
		if r == nil {
			continue
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Namespace) wake() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// Run tells copysets what they have to be told until ctx ends, and returns when all that it started has ended.
func (n *Namespace) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, raiseVolumes)
	again := time.NewTicker(n.o.RaiseRetry)
	defer again.Stop()
	for {
		if err := n.raiseTargets(ctx); err != nil && (metastore.Final(err) || ctx.Err() != nil) {
			return err
		}
		if n.o.Raiser != nil {
			n.start(ctx, &wg, slots)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.kick:
		case <-again.C:
		}
	}
}

// start gives every volume with something to tell a goroutine, as far as there are slots.
func (n *Namespace) start(ctx context.Context, wg *sync.WaitGroup, slots chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(n.mu.raising)) {
		r := n.mu.raising[id]
		if r.running {
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			return
		}
		r.running = true
		wg.Go(func() {
			more := n.tell(ctx, id)
			n.mu.Lock()
			r.running = false
			n.mu.Unlock()
			<-slots
			if more {
				n.wake()
			}
		})
	}
}

// tell asks the copysets of a volume once and stores who is left. It returns whether something new came up meanwhile.
func (n *Namespace) tell(ctx context.Context, id layout.VolumeID) bool {
	n.mu.RLock()
	v := n.mu.volumes[id]
	n.mu.RUnlock()
	if v == nil {
		return false
	}
	var mu sync.Mutex
	told := map[layout.CopysetID]bool{}
	var g errgroup.Group
	g.SetLimit(raiseCopysets)
	for _, c := range v.Pending {
		g.Go(func() error {
			attempt, cancel := context.WithTimeout(ctx, raiseAttempt)
			defer cancel()
			var err error
			if v.Deleting {
				err = n.o.Raiser.DeleteVolume(attempt, c, id)
			} else {
				err = n.o.Raiser.RaiseAccess(attempt, c, id, v.Access)
			}
			if err != nil {
				n.o.Log.Debug("copyset not told of an access generation", zap.Uint64("volume", uint64(id)),
					zap.Uint64("copyset", uint64(c)), zap.Error(err))
				return nil
			}
			mu.Lock()
			told[c] = true
			mu.Unlock()
			return nil
		})
	}
	_ = g.Wait()
	more := false
	err := n.update(ctx, func(x *tx) error {
		now := n.mu.volumes[id]
		if now.Access != v.Access {
			more = true
			return nil
		}
		next := *now
		next.Pending = slices.DeleteFunc(slices.Clone(now.Pending), func(c layout.CopysetID) bool { return told[c] })
		switch {
		case next.Deleting && len(next.Pending) == 0:
			more = n.forget(x, &next)
		case len(told) > 0:
			n.putVolume(x, &next)
		}
		return nil
	})
	return more && err == nil
}

// forget puts the end of a deleted volume into x, or of as many of its attachments as one transaction holds; then it
// returns true and is to be called again. No copyset takes anything for the volume any more, so its fences are not needed;
// an initiator that has no other attachment is forgotten with it.
func (n *Namespace) forget(x *tx, v *VolumeRecord) bool {
	for id, a := range n.mu.attachments[v.ID] {
		if x.batch.Len() >= metastore.BatchMax-4 {
			n.putVolume(x, v)
			return true
		}
		x.batch.Delete(attachmentTable, attachmentKey(v.ID, id))
		if n.mu.attached[id] == 1 {
			x.batch.Delete(initiatorTable, a.Initiator)
		}
		x.apply = append(x.apply, func() { n.forgetAttachmentLocked(a) })
	}
	x.batch.Delete(volumeTable, key(uint64(v.ID)))
	if n.mu.reservations[v.ID] != nil {
		x.batch.Delete(reservationTable, key(uint64(v.ID)))
	}
	x.apply = append(x.apply, func() {
		delete(n.mu.volumes, v.ID)
		delete(n.mu.attachments, v.ID)
		delete(n.mu.reservations, v.ID)
		if r := n.mu.raising[v.ID]; r != nil {
			close(r.done)
			delete(n.mu.raising, v.ID)
		}
	})
	n.o.Log.Info("volume deleted", zap.Uint64("volume", uint64(v.ID)), zap.String("name", v.Name))
	return false
}

// raiseTargets raises what did not fit into the transaction that took an entry out of a target's access list.
func (n *Namespace) raiseTargets(ctx context.Context) error {
	for {
		more := false
		err := n.update(ctx, func(x *tx) error {
			for _, t := range n.mu.targets {
				if len(t.Raise) == 0 {
					continue
				}
				more = true
				now := min(len(t.Raise), raiseBatch)
				n.raise(x, t.Raise[:now])
				next := t.clone()
				next.Raise = slices.Clone(t.Raise[now:])
				n.putTarget(x, next)
				return nil
			}
			return nil
		})
		if err != nil || !more {
			return err
		}
	}
}

// Pending is a volume with copysets that were not told yet.
type Pending struct {
	Volume   layout.VolumeID
	Name     string
	Deleting bool
	Copysets []layout.CopysetID
}

// Pending returns what is still to be told, by volume.
func (n *Namespace) Pending() []Pending {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []Pending
	for _, id := range slices.Sorted(maps.Keys(n.mu.raising)) {
		v := n.mu.volumes[id]
		out = append(out, Pending{Volume: id, Name: v.Name, Deleting: v.Deleting, Copysets: v.Pending})
	}
	return out
}
