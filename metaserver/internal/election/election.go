package election

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/leasefile"
)

// Pauses and bounds.
const (
	// retryPause is the time between two attempts to take part.
	retryPause = 500 * time.Millisecond
	// goodbyeMax bounds resigning and revoking the lease, each; without an answer the lease expires by itself.
	goodbyeMax = time.Second
	// releaseMax bounds giving back the lease of a process that was killed.
	releaseMax = 2 * time.Second
	// candidatesMax bounds how many candidates are read.
	candidatesMax = 64
)

// errLost ends a term: the lease can not be counted on any more.
var errLost = errors.New("election: the lease can not be counted on any more")

// Candidate is one who takes part, as the others see it.
type Candidate struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Version string `json:"version"`
	// SinceUnixMs is when it came to the election, for people to read.
	SinceUnixMs int64 `json:"since_unix_ms"`
	// Instance is the process, in hexadecimal digits; New sets it.
	Instance string `json:"instance,omitempty"`
}

// Memory keeps the lease for the process that comes after this one; *leasefile.File does.
type Memory interface {
	// Former returns the note of a process that has certainly ended, if there is one.
	Former() (leasefile.Note, bool)
	// Keep replaces the note by one of this process.
	Keep(leasefile.Note) error
}

// Options say who takes part in what.
type Options struct {
	// Client is borrowed, not closed.
	Client *clientv3.Client
	// Prefix is the key of the election, without a trailing slash.
	Prefix string
	// Self is what the others see.
	Self Candidate
	// TTL is the lease's time to live, at least 1 s, in whole seconds; 0: 5 s.
	TTL time.Duration
	// Log is never nil.
	Log *zap.Logger
}

// Election is one candidate. Run takes part; the other methods tell what is known of the others.
type Election struct {
	o        Options
	instance leasefile.Instance

	mu struct {
		sync.Mutex
		candidates []Candidate // the first is active
	}
}

// New makes a candidate that does not take part yet.
func New(o Options) *Election {
	if o.TTL <= 0 {
		o.TTL = 5 * time.Second
	}
	o.TTL = max(o.TTL.Truncate(time.Second), time.Second)
	e := &Election{o: o}
	_, _ = rand.Read(e.instance[:]) // crypto/rand.Read never fails: it ends the process instead
	e.o.Self.Instance = hex.EncodeToString(e.instance[:])
	return e
}

// Active returns the candidate that is active as far as is known; ok is false when none is.
func (e *Election) Active() (c Candidate, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.mu.candidates) == 0 {
		return Candidate{}, false
	}
	return e.mu.candidates[0], true
}

// Candidates returns those who take part as far as is known, the active one first.
func (e *Election) Candidates() []Candidate {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.mu.candidates)
}

// Run takes part until ctx ends, again after each term, and returns ctx's error. It calls lead for each term with a
// context that ends when the term does; lead must return soon after, and only when all that it started has ended: the
// key is given up after that. An error of lead ends the term and is logged. With a memory, which may be nil, the lease of the
// process before is given back first, and the next process can do the same with that of this one.
func (e *Election) Run(ctx context.Context, m Memory, lead func(context.Context, *Term) error) error {
	var wg sync.WaitGroup
	wg.Go(func() { e.observe(ctx) })
	defer wg.Wait()
	last, released := "", m == nil
	for {
		if !released {
			err := e.release(ctx, m)
			if released = err == nil; !released {
				e.o.Log.Debug("the lease of the process before is not given back yet", zap.Error(err))
			}
		}
		// While etcd is away every round ends in the same way; that is said once.
		if err := e.round(ctx, m, lead); err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			e.o.Log.Warn("not active, trying again", zap.Error(err))
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// round takes part once, from the grant of a lease to its end.
func (e *Election) round(ctx context.Context, m Memory, lead func(context.Context, *Term) error) error {
	sent := time.Now()
	grantCtx, cancelGrant := context.WithTimeout(ctx, e.o.TTL)
	grant, err := e.o.Client.Grant(grantCtx, int64(e.o.TTL/time.Second))
	cancelGrant()
	if err != nil {
		return fmt.Errorf("granting a lease: %w", err)
	}
	if m != nil {
		note := leasefile.Note{Etcd: grant.GetClusterId(), Prefix: e.o.Prefix, Lease: int64(grant.ID), Instance: e.instance}
		if err := m.Keep(note); err != nil {
			e.o.Log.Warn("the lease is not kept in the data directory: a restart after a kill takes its life longer", zap.Error(err))
		}
	}
	ttl := time.Duration(grant.TTL) * time.Second
	t := &Term{lease: grant.ID, client: e.o.Client, ttl: ttl, lost: make(chan struct{})}
	t.renewed(sent)

	// The recipe cleans up with its client's own context, without a bound: it gets one that ends soon after the round's.
	roundCtx, endRound := context.WithCancel(ctx)
	ownCtx, endOwn := context.WithCancel(context.WithoutCancel(ctx))
	defer endOwn()
	stop := context.AfterFunc(roundCtx, func() { time.AfterFunc(goodbyeMax, endOwn) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { t.keepAlive(roundCtx, endRound) })
	defer wg.Wait()
	defer e.revoke(grant.ID)
	defer endRound()

	own := clientv3.NewCtxClient(ownCtx, clientv3.WithZapLogger(e.o.Log.Named("etcd")))
	own.KV, own.Lease, own.Watcher = e.o.Client.KV, e.o.Client.Lease, e.o.Client.Watcher
	session, err := concurrency.NewSession(own, concurrency.WithLease(grant.ID), concurrency.WithContext(ownCtx))
	if err != nil {
		return fmt.Errorf("making a session: %w", err)
	}
	// The session's own renewals would hide when they were sent; the term renews the lease itself.
	session.Orphan()
	el := concurrency.NewElection(session, e.o.Prefix)
	value, err := json.Marshal(e.o.Self)
	if err != nil {
		return err
	}
	if err := el.Campaign(roundCtx, string(value)); err != nil {
		return fmt.Errorf("campaigning: %w", err)
	}
	return e.term(roundCtx, t, el, lead)
}

// term leads once the election is won, and resigns.
func (e *Election) term(ctx context.Context, t *Term, el *concurrency.Election, lead func(context.Context, *Term) error) error {
	t.elected(el.Key(), el.Rev())
	if err := t.check(ctx); err != nil {
		return fmt.Errorf("reading the own key after the election: %w", err)
	}
	if !t.Valid() {
		return errLost
	}
	e.o.Log.Info("active", zap.Int64("revision", t.Revision()))
	err := lead(ctx, t)
	e.o.Log.Info("no longer active", zap.Int64("revision", t.Revision()), zap.Error(err))
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeMax)
	defer cancel()
	if rerr := el.Resign(bye); rerr != nil {
		e.o.Log.Debug("resigning failed, the lease will expire", zap.Error(rerr))
	}
	return err
}

// revoke gives the lease back, so that the others need not wait for its end.
func (e *Election) revoke(id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeMax)
	defer cancel()
	if _, err := e.o.Client.Revoke(ctx, id); err != nil {
		e.o.Log.Debug("revoking the lease failed, it will expire", zap.Error(err))
	}
}

// observe keeps the list of candidates until ctx ends.
func (e *Election) observe(ctx context.Context) {
	for ctx.Err() == nil {
		if err := e.observeOnce(ctx); err != nil && ctx.Err() == nil {
			e.o.Log.Debug("observing the election", zap.Error(err))
			e.set(nil)
		}
		_ = pause(ctx, retryPause)
	}
}

// observeOnce follows the candidates until the watch ends.
func (e *Election) observeOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := e.read(ctx); err != nil {
		return err
	}
	changes := e.o.Client.Watch(clientv3.WithRequireLeader(ctx), e.o.Prefix+"/", clientv3.WithPrefix())
	// What changed between the reading and the watch is found by reading again.
	again := time.NewTicker(e.o.TTL)
	defer again.Stop()
	for {
		if err := e.read(ctx); err != nil {
			return err
		}
		select {
		case r, ok := <-changes:
			if !ok {
				return errors.New("the watch ended")
			}
			if err := r.Err(); err != nil {
				return err
			}
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read asks for the candidates.
func (e *Election) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.o.TTL)
	defer cancel()
	r, err := e.o.Client.Get(ctx, e.o.Prefix+"/", clientv3.WithPrefix(), clientv3.WithLimit(candidatesMax),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil {
		return err
	}
	list := make([]Candidate, 0, len(r.Kvs))
	for _, kv := range r.Kvs {
		var c Candidate
		if json.Unmarshal(kv.Value, &c) == nil {
			list = append(list, c)
		}
	}
	e.set(list)
	return nil
}

func (e *Election) set(list []Candidate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.candidates = list
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
