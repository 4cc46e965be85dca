package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

const (
	// refreshTimeout bounds how long a command waits for reservations to be read anew before it is judged by what is known.
	refreshTimeout = time.Second
	// endsMax bounds the ends of SPC-2 reservations that wait for the metaserver; one more is left to its reset.
	endsMax = 4096
	// requestLen is the length of the name of a request, in bytes.
	requestLen = 16
)

// reserver asks the active metaserver for changes of reservations.
type reserver struct {
	node    metav1.NodeClient
	gateway func() uint64
	log     *zap.Logger
	// unit returns the logical unit of a volume, nil if there is none; port is the relative target port of this gateway.
	unit func(layout.VolumeID) *scsi.LogicalUnit
	port func() uint16
	// erasures learn first.
	erasures *erasures
	kick     chan struct{}

	mu struct {
		sync.Mutex
		// ends are what the metaserver does not know of yet, oldest first, count of them; sending are the volumes whose ends
		// are being sent.
		ends    map[layout.VolumeID][]*end
		count   int
		sending map[layout.VolumeID]bool
	}
}

// end is the end of an SPC-2 reservation, or a reset of a logical unit, that the metaserver is to be told. All attempts have
// one name, so that it is carried out once.
type end struct {
	message *metav1.ReserveRequest
	// begun: it may be on its way. off is closed when it is off the queue.
	begun bool
	off   chan struct{}
	// answers are called when a reset may be answered; asked is when the first of them came.
	answers []func()
	asked   time.Time
}

func newReserver(node metav1.NodeClient, gateway func() uint64, log *zap.Logger) *reserver {
	r := &reserver{node: node, gateway: gateway, log: log, kick: make(chan struct{}, 1)}
	r.unit = func(layout.VolumeID) *scsi.LogicalUnit { return nil }
	r.port, r.erasures = func() uint16 { return 0 }, newErasures()
	r.mu.ends, r.mu.sending = map[layout.VolumeID][]*end{}, map[layout.VolumeID]bool{}
	return r
}

// run sends the ends until ctx ends: those of a volume in their order, volumes beside each other.
func (r *reserver) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		r.mu.Lock()
		for id := range r.mu.ends {
			if !r.mu.sending[id] {
				r.mu.sending[id] = true
				wg.Go(func() { r.sendEnds(ctx, id, &wg) })
			}
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.kick:
		}
	}
}

// sendEnds sends the ends of a volume until there are none, or ctx ends. What comes after they were sent is done in wg.
func (r *reserver) sendEnds(ctx context.Context, id layout.VolumeID, wg *sync.WaitGroup) {
	for {
		r.mu.Lock()
		list := r.mu.ends[id]
		if len(list) == 0 || ctx.Err() != nil {
			delete(r.mu.sending, id)
			r.mu.Unlock()
			return
		}
		e := list[0]
		e.begun = true
		r.mu.Unlock()
		if e.answers != nil {
			r.sendReset(ctx, e, wg)
		} else {
			r.persist(ctx, e.message)
		}
		if ctx.Err() == nil {
			r.remove(id, e)
		}
	}
}

// remove takes e, which is the first, off the queue.
func (r *reserver) remove(id layout.VolumeID, e *end) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.ends[id] = r.mu.ends[id][1:]
	r.mu.count--
	if len(r.mu.ends[id]) == 0 {
		delete(r.mu.ends, id)
	}
	close(e.off)
}

// persist sends an end until it is taken or refused, or ctx ends. One that the metaserver will never take is given up: it would
// keep all that comes after it waiting for ever.
func (r *reserver) persist(ctx context.Context, m *metav1.ReserveRequest) {
	for ctx.Err() == nil {
		_, _, err := r.send(ctx, m)
		switch {
		case err == nil || errors.Is(err, scsi.ErrAccessRevoked):
			return
		case refusedForGood(err):
			r.log.Warn("the end of a reservation is refused and given up", zap.Uint64("volume", m.GetVolume()),
				zap.String("initiator", m.GetNexus().GetInitiator()), zap.Uint32("action", m.GetAction()), zap.Error(err))
			return
		}
		r.log.Debug("end of a reservation", zap.Uint64("volume", m.GetVolume()), zap.Error(err))
		_ = sleep(ctx, registerPause)
	}
}

// refusedForGood tells whether a call that failed fails whenever it is repeated.
func refusedForGood(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.ResourceExhausted, codes.Unimplemented:
		return true
	}
	return false
}

// end has the end of an SPC-2 reservation sent soon. It does not block.
func (r *reserver) end(id layout.VolumeID, q *reservation.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queueLocked(id, &end{message: r.message(id, q)})
}

// queueLocked has e sent after what is there; false: there is too much.
func (r *reserver) queueLocked(id layout.VolumeID, e *end) bool {
	if r.mu.count >= endsMax {
		r.log.Warn("too many ends of reservations wait for the metaserver", zap.Uint64("volume", uint64(id)))
		return false
	}
	e.off = make(chan struct{})
	r.mu.ends[id] = append(r.mu.ends[id], e)
	r.mu.count++
	select {
	case r.kick <- struct{}{}:
	default:
	}
	return true
}

// flush waits until the ends that wait for a volume were sent.
func (r *reserver) flush(ctx context.Context, id layout.VolumeID) error {
	r.mu.Lock()
	list := r.mu.ends[id]
	r.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	select {
	case <-list[len(list)-1].off:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// change asks for a change, after the ends that wait, and returns the reservations that it led to.
func (r *reserver) change(ctx context.Context, id layout.VolumeID, q *reservation.Request) (reservation.Status, *scsi.Reservations, error) {
	if err := r.flush(ctx, id); err != nil {
		return 0, nil, err
	}
	return r.send(ctx, r.message(id, q))
}

// message makes the message of a request, with a name of its own.
func (r *reserver) message(id layout.VolumeID, q *reservation.Request) *metav1.ReserveRequest {
	m := reserveRequest(q)
	m.Gateway, m.Volume, m.Request = r.gateway(), uint64(id), make([]byte, requestLen)
	_, _ = rand.Read(m.Request) // never fails: it ends the process instead
	return m
}

// send asks for a change until there is an answer or ctx ends. All attempts have one name, so that it is made once.
func (r *reserver) send(ctx context.Context, m *metav1.ReserveRequest) (reservation.Status, *scsi.Reservations, error) {
	var reply *metav1.ReserveReply
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		reply, err = r.node.Reserve(ctx, m)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	now, err := newReservations(reply.GetReservations())
	if err != nil {
		return 0, nil, err
	}
	r.learn(ctx, layout.VolumeID(m.GetVolume()), now)
	return reservation.Status(reply.GetStatus()), now, nil
}

// read returns the reservations of a volume as they are, for an initiator that may use it.
func (r *reserver) read(ctx context.Context, id layout.VolumeID, initiator string) (*scsi.Reservations, error) {
	if err := r.flush(ctx, id); err != nil {
		return nil, err
	}
	var reply *metav1.VolumeReservations
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		reply, err = r.node.ShowReservations(ctx, &metav1.ShowReservationsRequest{Volume: uint64(id), Initiator: initiator})
		return err
	})
	if err != nil {
		return nil, err
	}
	now, err := newReservations(reply)
	if err != nil {
		return nil, err
	}
	r.learn(ctx, id, now)
	return now, nil
}

// learn gives what was learned to the logical unit.
func (r *reserver) learn(ctx context.Context, id layout.VolumeID, now *scsi.Reservations) {
	r.erasures.learn(id, now.State)
	if u := r.unit(id); u != nil {
		r.judge(ctx, id, u, now)
		u.SetReservations(now)
	}
}

// ask repeats a call that got no answer as long as ctx lives.
func (r *reserver) ask(ctx context.Context, call func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, attachAttempt)
		err := call(attempt)
		cancel()
		switch status.Code(err) {
		case codes.OK:
			return nil
		case codes.FailedPrecondition, codes.NotFound:
			return fmt.Errorf("%w: %w", scsi.ErrAccessRevoked, err)
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		default:
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(registerPause):
		}
	}
}

// orphan ends the SPC-2 reservation of a nexus of this gateway that has no session: the gateway was restarted, or the session
// ended before it was known that it held one.
func (g *Gateway) orphan(all map[uint64]*scsi.Reservations) {
	for id, r := range all {
		l := r.State.Legacy
		if l != nil && uint32(l.Port) == g.relativePort.Load() && !g.registry.HasNexus(l.Nexus) {
			q := &reservation.Request{Nexus: l.Nexus, Action: reservation.NexusLost, Since: l.Since}
			g.reserver.end(layout.VolumeID(id), q)
		}
	}
}

// Reserve implements scsi.Reserver.
func (m *medium) Reserve(ctx context.Context, q *reservation.Request) (reservation.Status, error) {
	st, now, err := m.owner.reserver.change(ctx, m.volume, q)
	if err != nil {
		return 0, err
	}
	m.judged(now)
	return st, nil
}

// Reservations implements scsi.Reserver.
func (m *medium) Reservations(ctx context.Context) (*scsi.Reservations, error) {
	now, err := m.owner.reserver.read(ctx, m.volume, m.initiator)
	if err != nil {
		return nil, err
	}
	m.judged(now)
	return now, nil
}

// Refresh implements scsi.Reserver. One command reads at a time, and what it learns, or that there is no answer, is for all
// that were waiting when it began.
func (m *medium) Refresh(ctx context.Context, seen *scsi.Reservations) error {
	m.mu.Lock()
	began := m.mu.refreshes
	m.mu.Unlock()
	select {
	case m.refreshing <- struct{}{}:
		defer func() { <-m.refreshing }()
	case <-ctx.Done():
		return nil
	}
	m.mu.Lock()
	known, meanwhile := m.mu.known, m.mu.refreshes != began
	newer := known != nil && seen != nil && (known.Access > seen.Access || known.State.Version > seen.State.Version)
	if !newer && !meanwhile {
		m.mu.refreshes++
	}
	m.mu.Unlock()
	if newer || meanwhile {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	_, err := m.Reservations(ask)
	switch {
	case errors.Is(err, scsi.ErrAccessRevoked):
		return scsi.ErrAccessRevoked
	case err != nil:
		<-ask.Done() // the command is judged by what is known, and may come back at once
	}
	return nil
}

// Reset implements scsi.Reserver.
func (m *medium) Reset(q *reservation.Request, done func()) {
	m.owner.reserver.reset(m.volume, q, done)
}

// EndLegacy implements scsi.Reserver.
func (m *medium) EndLegacy(q *reservation.Request) { m.owner.reserver.end(m.volume, q) }

// judged takes over reservations under which the metaserver still lets the initiator use the volume.
func (m *medium) judged(now *scsi.Reservations) {
	m.mu.Lock()
	defer m.mu.Unlock()
	access := layout.AccessGeneration(now.Access)
	if access < m.mu.access || m.mu.known != nil && now.State.Version < m.mu.known.State.Version {
		return
	}
	m.mu.known, m.mu.access = now, access
	if m.mu.handle != nil {
		m.mu.handle.SetAccess(access)
	}
}
