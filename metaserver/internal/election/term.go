package election

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// marginShare is the part of the TTL by which a term ends early: for clocks that run at different speeds and for what
// was checked just before the end.
const marginShare = 5

// renewShare: a renewal is sent every TTL/renewShare.
const renewShare = 4

// Term is one time of being active, or of waiting to be.
type Term struct {
	lease  clientv3.LeaseID
	client *clientv3.Client
	ttl    time.Duration
	lost   chan struct{}

	mu struct {
		sync.Mutex
		key      string
		revision int64
		deadline time.Time // of the monotonic clock
		over     bool
	}
}

// Key returns the own key of the election.
func (t *Term) Key() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.key
}

// Revision returns the CreateRevision of the own key: the fence.
func (t *Term) Revision() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.revision
}

// Valid tells whether the lease can not have expired yet. It reads the clock, so it is right also just after the process
// was stopped and resumed; what is sent after it returned true must carry the fence all the same.
func (t *Term) Valid() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.mu.over && time.Now().Before(t.mu.deadline)
}

// End ends the term, for example because a fenced transaction was refused.
func (t *Term) End() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.mu.over {
		t.mu.over = true
		close(t.lost)
	}
}

func (t *Term) elected(key string, revision int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.key, t.mu.revision = key, revision
}

// renewed moves the deadline after a renewal that was sent at the given time was answered.
func (t *Term) renewed(sent time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.deadline = sent.Add(t.ttl - t.ttl/marginShare)
}

func (t *Term) left() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Until(t.mu.deadline)
}

// check reads the own key, if there is one yet.
func (t *Term) check(ctx context.Context) error {
	key, revision := t.Key(), t.Revision()
	if key == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.ttl)
	defer cancel()
	r, err := t.client.Get(ctx, key)
	if err != nil {
		return err
	}
	if len(r.Kvs) != 1 || r.Kvs[0].CreateRevision != revision || r.Kvs[0].Lease != int64(t.lease) {
		return fmt.Errorf("%w: the own key is gone", errLost)
	}
	return nil
}

// keepAlive renews the lease and calls end when the term is over: the deadline passed, the lease or the own key is gone,
// or End was called. It returns when ctx ends.
func (t *Term) keepAlive(ctx context.Context, end context.CancelFunc) {
	defer end()
	defer t.End()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { t.renewals(ctx) })
	// The watch over the deadline is a goroutine of its own: a renewal may hang.
	for {
		left := t.left()
		if left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-ctx.Done():
		case <-t.lost:
		case <-timer.C:
			continue
		}
		timer.Stop()
		return
	}
}

// renewals sends renewals until ctx ends or the lease or the own key turns out to be gone.
func (t *Term) renewals(ctx context.Context) {
	tick := time.NewTicker(t.ttl / renewShare)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := t.renew(ctx); errors.Is(err, errLost) {
			t.End()
			return
		}
	}
}

// renew sends one renewal; an error other than errLost leaves the deadline where it was.
func (t *Term) renew(ctx context.Context) error {
	sent := time.Now()
	bounded, cancel := context.WithTimeout(ctx, t.ttl/2)
	defer cancel()
	r, err := t.client.KeepAliveOnce(bounded, t.lease)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%w: %w", errLost, err)
	case err != nil:
		return err
	case r.TTL <= 0:
		return errLost
	}
	if err := t.check(bounded); err != nil {
		return err
	}
	t.renewed(sent)
	return nil
}
