package gateway

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// A reset of a logical unit is for the sessions of all gateways:
//
//	host ── LOGICAL UNIT RESET ──► this gateway: its own sessions at once
//	                                  │ Reserve ──► metaserver: stored, with the next access generation
//	                                  │ AwaitReset      │ raised in the copysets    │ exports
//	                                  │                 │                           ▼
//	                                  │                 │      another gateway: ResetAwaited? aborts, fences, confirms
//	host ◄── complete ────────────────┴◄── all have ────┴───────────────────────────┘
//
// Another gateway aborts what it has only while the answer surely waits for it; see package metarpc of the metaserver. One that
// hears of the reset later leaves its commands alone: those that were sent before are refused by the copysets, and end with the
// unit attention of the reset (scsi.attachment.overtaken), as one that was sent after it would. The answer waits no longer than
// resetAsk and resetPromise, also when what has to be told before the reset has to wait for a metaserver.
const (
	// resetAsk bounds how long the answer to a reset waits for the metaserver to take it, and a gateway that is told of one for
	// the word whether its answer waits.
	resetAsk = time.Second
	// resetPromise is how long the answer then waits for the other gateways. The metaserver counts on it, with a margin.
	resetPromise = 1500 * time.Millisecond
	// judgeMax bounds the resets that are asked about at once: a reset of a target is one of each of its logical units.
	judgeMax = 16
)

// reset has the other gateways told of a reset, and done called once when they have acted on it, or did not in time. A reset that
// comes while another one waits to be sent is told with it. It does not block.
func (r *reserver) reset(id layout.VolumeID, q *reservation.Request, done func()) {
	once := sync.OnceFunc(done)
	late := time.AfterFunc(resetAsk+resetPromise, once)
	done = func() {
		late.Stop()
		once()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.mu.ends[id] {
		if len(e.answers) > 0 && !e.begun {
			e.message.Since = max(e.message.GetSince(), q.Since)
			e.answers = append(e.answers, done)
			return
		}
	}
	e := &end{message: r.message(id, q), answers: []func(){done}, asked: time.Now()}
	if !r.queueLocked(id, e) {
		done()
	}
}

// sendReset sends a reset, and has it answered. Without a metaserver it is answered before it was told, and told when there is
// one again: then nothing is aborted for it elsewhere, for nobody is told that the answer waits.
func (r *reserver) sendReset(ctx context.Context, e *end, wg *sync.WaitGroup) {
	attempt, cancel := context.WithDeadline(ctx, e.asked.Add(resetAsk))
	_, now, err := r.send(attempt, e.message)
	cancel()
	switch {
	case err != nil:
		e.answer()
		r.persist(ctx, e.message)
	case time.Since(e.asked) > resetAsk: // it may be answered before resetPromise is over
		e.answer()
	default:
		wg.Go(func() {
			r.awaitReset(ctx, layout.VolumeID(e.message.GetVolume()), now.State.Version)
			e.answer()
		})
	}
}

// answer has the reset answered. Nobody adds to answers once the end was begun.
func (e *end) answer() {
	for _, f := range e.answers {
		f()
	}
}

// awaitReset waits until the other gateways have acted on a reset, resetPromise at most. No answer is no word that they have
// not, so then it takes all of that time.
func (r *reserver) awaitReset(ctx context.Context, id layout.VolumeID, version uint64) {
	ctx, cancel := context.WithTimeout(ctx, resetPromise)
	defer cancel()
	reply, err := r.node.AwaitReset(ctx, &metav1.AwaitResetRequest{Gateway: r.gateway(), Volume: uint64(id), Version: version})
	switch {
	case status.Code(err) == codes.Unimplemented: // it tells nobody that the answer waits
	case err != nil:
		<-ctx.Done()
	case len(reply.GetPendingGateways()) > 0:
		r.log.Warn("a reset was answered before all gateways have acted on it", zap.Uint64("volume", uint64(id)),
			zap.Strings("gateways", reply.GetPendingGateways()))
	}
}

// news returns the version of the last reset that now tells of and u does not know, 0 if there is none, and the version that u
// knows.
func (r *reserver) news(u *scsi.LogicalUnit, now *scsi.Reservations) (version, since uint64) {
	if known := u.Reservations(); known != nil {
		since = known.State.Version
		version = now.State.ResetSince(since, r.port())
	}
	return version, since
}

// judge finds out whether resets that now tells of end the commands that u has from this gateway's sessions.
func (r *reserver) judge(ctx context.Context, id layout.VolumeID, u *scsi.LogicalUnit, now *scsi.Reservations) {
	version, since := r.news(u, now)
	if version == 0 {
		return
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, resetAsk)
	defer cancel()
	reply, err := r.node.ResetAwaited(ctx, &metav1.ResetAwaitedRequest{Gateway: r.gateway(), Volume: uint64(id), Version: version})
	if left := time.Duration(reply.GetLeftMs()) * time.Millisecond; err == nil && time.Since(asked) < left {
		now.State.AbortResets(since, r.port())
	}
}

// judgeAll is judge, and what comes before and after it, for what the exports tell. A judgement holds for the moment only, so each
// logical unit learns at once, and does not wait for what is asked about others.
func (r *reserver) judgeAll(ctx context.Context, all map[uint64]*scsi.Reservations) {
	var asking errgroup.Group
	asking.SetLimit(judgeMax)
	for n, now := range all {
		id := layout.VolumeID(n)
		r.erasures.learn(id, now.State)
		u := r.unit(id)
		if u == nil {
			continue
		}
		if version, _ := r.news(u, now); version != 0 {
			asking.Go(func() error {
				r.judge(ctx, id, u, now)
				u.SetReservations(now)
				return nil
			})
		}
	}
	_ = asking.Wait()
}
