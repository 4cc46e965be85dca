package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
	"github.com/ashlar-storage/ashlar/storage/volume"
)

// How a volume is sanitized.
const (
	// overwriteRate bounds an overwrite, in bytes a second: hosts of other volumes use the same disks.
	overwriteRate = 32 << 20
	// overwritePiece and erasePiece are what is done at once, in bytes.
	overwritePiece, erasePiece = 1 << 20, 64 << 20
	// recordEvery is the time between two records of how far it is, which renew the claim too.
	recordEvery = 4 * time.Second
	// claimAfter is how long a claim is not renewed before another gateway takes it.
	claimAfter = 15 * time.Second
	// claimTick is how often that is looked at.
	claimTick = time.Second
)

// erasure is the SANITIZE of one volume as this gateway knows it. The metaserver keeps it (reservation.Sanitize); every gateway
// refuses commands by what it was told, and one carries it out.
//
//	SANITIZE ──► SanitizeBegin stored, access generation raised ──► carried out here, recorded every recordEvery ──► nothing left
//	                                                                    │ not renewed for claimAfter, or restarted
//	                                                                    └──► SanitizeClaim: another gateway goes on
//
// Who carries it out is bound to the access generation of its claim. A claim raises it, so that the copysets refuse what the
// gateway before still has under way, however long that hung: nothing is written when the volume is used again.
type erasure struct {
	volume layout.VolumeID
	// status is what commands are judged by.
	status atomic.Pointer[sanitize.Status]

	mu struct {
		sync.Mutex
		version uint64
		now     *reservation.Sanitize
		// heard is when the claim was renewed last, as far as is known.
		heard time.Time
		// ended is closed unless now runs.
		ended chan struct{}
		// here: it is being begun, claimed or carried out by this process.
		here bool
	}
}

// erasures carries the SANITIZEs of a gateway out: each in a goroutine of its own that ends with its work, with the claim, or
// when stop is called.
type erasures struct {
	ctx    context.Context //nolint:containedctx // of the goroutines, which outlive the commands that began them
	cancel context.CancelFunc
	wg     sync.WaitGroup
	rate   int64
	every  time.Duration // recordEvery
	after  time.Duration // claimAfter
	log    *zap.Logger
	// change asks for a change of the record; port is the relative target port of this gateway.
	change func(context.Context, layout.VolumeID, *reservation.Request) (reservation.Status, *scsi.Reservations, error)
	port   func() uint16
	// open opens the volume for the gateways themselves; nil: it is not exported.
	open func(layout.VolumeID, layout.AccessGeneration) *volume.Handle

	mu  sync.Mutex
	all map[layout.VolumeID]*erasure
}

func newErasures() *erasures {
	s := &erasures{rate: overwriteRate, every: recordEvery, after: claimAfter, log: zap.NewNop(), port: func() uint16 { return 0 }, all: map[layout.VolumeID]*erasure{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// stop ends what runs, as it is, and waits for it. Nothing may be begun any more.
func (s *erasures) stop() {
	s.cancel()
	s.wg.Wait()
}

// of returns the erasure of a volume.
func (s *erasures) of(id layout.VolumeID) *erasure {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[id]
	if e == nil {
		e = &erasure{volume: id}
		e.status.Store(&sanitize.Status{})
		e.mu.ended = make(chan struct{})
		close(e.mu.ended)
		s.all[id] = e
	}
	return e
}

// keep forgets the volumes that are not exported any more.
func (s *erasures) keep(exported func(layout.VolumeID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.all {
		if !exported(id) {
			delete(s.all, id)
		}
	}
}

// learn takes over what was learned of a volume. It is called before the logical unit knows: who sees the reservations sees this.
func (s *erasures) learn(id layout.VolumeID, state *reservation.State) {
	if state.Sanitize != nil || s.known(id) {
		s.of(id).learn(state)
	}
}

func (s *erasures) known(id layout.VolumeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id] != nil
}

func (e *erasure) learn(state *reservation.State) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if state.Version <= e.mu.version {
		return
	}
	old, now := e.mu.now, state.Sanitize
	if now != nil && (old == nil || now.ID != old.ID || now.Claim != old.Claim || now.Beat != old.Beat) {
		e.mu.heard = time.Now()
	}
	e.mu.version, e.mu.now = state.Version, now
	e.status.Store(statusOf(now)) // before the end is told: the next command is to find it
	if old.Runs() && !(now.Runs() && now.ID == old.ID) {
		close(e.mu.ended)
	}
	if now.Runs() && !(old.Runs() && now.ID == old.ID) {
		e.mu.ended = make(chan struct{})
	}
}

// statusOf is how z is told to hosts.
func statusOf(z *reservation.Sanitize) *sanitize.Status {
	switch {
	case z == nil:
		return &sanitize.Status{}
	case z.Failed:
		return &sanitize.Status{State: sanitize.Failed, Exit: z.Exit}
	}
	return &sanitize.Status{
		State: sanitize.Running, Progress: sanitize.ProgressOf(uint64(z.Done), uint64(z.Total())), Exit: z.Exit,
	}
}

// enter takes the place of the one that works on the volume in this process.
func (e *erasure) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.here {
		return false
	}
	e.mu.here = true
	return true
}

func (e *erasure) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.here = false
}

var _ scsi.Sanitizer = (*medium)(nil)

// Sanitizing implements scsi.Sanitizer.
func (m *medium) Sanitizing() sanitize.Status { return *m.erasure.status.Load() }

// ExitSanitize implements scsi.Sanitizer.
func (m *medium) ExitSanitize(ctx context.Context, by reservation.Nexus) error {
	q := &reservation.Request{Nexus: by, Action: reservation.SanitizeExit}
	_, err := m.owner.erasures.ask(ctx, m.volume, q)
	return err
}

// Sanitize implements scsi.Sanitizer. The command is proven before anything is begun.
func (m *medium) Sanitize(ctx context.Context, by reservation.Nexus, o sanitize.Order, size int64) (<-chan struct{}, error) {
	h, err := m.open()
	if err != nil {
		return nil, err
	}
	if err := h.Prove(ctx); err != nil {
		return nil, outcome(err, 0)
	}
	e, s := m.erasure, m.owner.erasures
	if s.ctx.Err() != nil || !e.enter() {
		return nil, scsi.ErrSanitizing
	}
	now, err := s.ask(ctx, m.volume, &reservation.Request{
		Nexus: by, Action: reservation.SanitizeBegin,
		Sanitize: &reservation.Sanitize{Passes: uint8(o.Passes), Pattern: o.Block, Invert: o.Invert, Exit: o.Exit, Size: size},
	})
	e.mu.Lock()
	ended := e.mu.ended
	e.mu.Unlock()
	switch {
	case err == nil:
		s.carry(e, now)
	case errors.Is(err, errTaken): // it was begun, and another gateway carries it out, or has
		e.leave()
	default:
		e.leave()
		return nil, err
	}
	return ended, nil
}

// errTaken says that a change was made, but that another gateway has the claim by now, or all has ended.
var errTaken = errors.New("gateway: another gateway has the claim")

// ask asks for a change of the record and returns what it led to. The error is one that scsi knows, errTaken, or that of ctx.
func (s *erasures) ask(ctx context.Context, id layout.VolumeID, q *reservation.Request) (*scsi.Reservations, error) {
	st, now, err := s.change(ctx, id, q)
	switch {
	case err != nil:
		return nil, err
	case st == reservation.Sanitizing:
		return nil, scsi.ErrSanitizing
	case st != reservation.Good && q.Action != reservation.SanitizeReport:
		return nil, scsi.ErrReservationConflict
	case !mine(q, now.State.Sanitize):
		return nil, errTaken
	}
	return now, nil
}

// mine tells whether z, which is on record after q was answered, has the claim that q asked for or was made under. The status does
// not tell: if the first answer was lost, the one to a repetition is GOOD with whatever is on record by then, or that of a report is
// a conflict because it was the last.
func mine(q *reservation.Request, z *reservation.Sanitize) bool {
	switch q.Action {
	case reservation.SanitizeBegin:
		return z.Runs() && z.Claim == 1 && z.Port == q.Nexus.Port
	case reservation.SanitizeClaim:
		return z.Runs() && z.ID == q.Sanitize.ID && z.Claim == q.Sanitize.Claim+1 && z.Port == q.Nexus.Port
	case reservation.SanitizeReport:
		if z == nil {
			return q.Sanitize.Done >= q.Sanitize.Total()
		}
		return z.ID == q.Sanitize.ID && z.Claim == q.Sanitize.Claim
	}
	return true
}

// run takes over what nobody carries out, until ctx ends.
func (s *erasures) run(ctx context.Context) error {
	tick := time.NewTicker(claimTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		s.mu.Lock()
		var idle []*erasure
		for _, e := range s.all {
			idle = append(idle, e)
		}
		s.mu.Unlock()
		for _, e := range idle {
			s.claim(ctx, e)
		}
	}
}

// claim takes over the SANITIZE of a volume if its claim was not renewed for too long, or is that of this gateway, which was
// restarted.
func (s *erasures) claim(ctx context.Context, e *erasure) {
	e.mu.Lock()
	z := e.mu.now
	due := z.Runs() && !e.mu.here && (z.Port == s.port() || time.Since(e.mu.heard) > s.after)
	e.mu.Unlock()
	if !due || !e.enter() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, claimAfter)
	defer cancel()
	now, err := s.ask(ctx, e.volume, s.request(reservation.SanitizeClaim, z))
	if err != nil {
		e.leave()
		s.log.Debug("sanitize not taken over", zap.Uint64("volume", uint64(e.volume)), zap.Error(err))
		return
	}
	s.log.Info("sanitize goes on here", zap.Uint64("volume", uint64(e.volume)), zap.Int64("done", z.Done), zap.Int64("of", z.Total()))
	s.carry(e, now)
}

// request makes a request of the gateways about z.
func (s *erasures) request(a reservation.Action, z *reservation.Sanitize) *reservation.Request {
	return &reservation.Request{
		Nexus: reservation.Nexus{Initiator: gatewayName, Port: s.port()}, Action: a, Sanitize: z,
	}
}

// gatewayName stands for a gateway where a request names an initiator and none is meant.
const gatewayName = "iqn.2026-11.dev.ashlar:gateway"

// carry carries out the SANITIZE of which now has the claim of this gateway, and leaves e.
func (s *erasures) carry(e *erasure, now *scsi.Reservations) {
	s.wg.Go(func() {
		defer e.leave()
		w := &eraser{s: s, e: e, z: *now.State.Sanitize, access: now.Access, reported: time.Now()}
		err := w.run(reservation.Exempt(s.ctx))
		if err == nil {
			s.log.Info("sanitize ended", zap.Uint64("volume", uint64(e.volume)))
		} else {
			s.log.Warn("sanitize ended here", zap.Uint64("volume", uint64(e.volume)), zap.Error(err))
		}
	})
}

// sleep waits for d, less if ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errUnexported says that the volume is exported no more: whoever exports it again goes on.
var errUnexported = errors.New("gateway: the volume is not exported")
