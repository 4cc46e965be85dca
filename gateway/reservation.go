package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
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
	// endAgain is the pause before the end of an SPC-2 reservation is tried again.
	endAgain = time.Second
	// endsMax bounds the ends of SPC-2 reservations that wait for the metaserver; one more is left to its reset.
	endsMax = 4096
	// requestLen is the length of the name of a request, in bytes.
	requestLen = 16
	// resetsMax bounds what waits for one volume when another reset comes.
	resetsMax = 8
)

// reserver asks the active metaserver for changes of reservations.
type reserver struct {
	node    metav1.NodeClient
	gateway func() uint64
	log     *zap.Logger
	// told gives what was learned to the logical unit.
	told func(layout.VolumeID, *scsi.Reservations)
	kick chan struct{}

	mu struct {
		sync.Mutex
		// ends are the ends of SPC-2 reservations that the metaserver does not know of yet, oldest first, count of them.
		ends  map[layout.VolumeID][]*metav1.ReserveRequest
		count int
	}
}

func newReserver(node metav1.NodeClient, gateway func() uint64, log *zap.Logger) *reserver {
	r := &reserver{node: node, gateway: gateway, log: log, kick: make(chan struct{}, 1)}
	r.told = func(layout.VolumeID, *scsi.Reservations) {}
	r.mu.ends = map[layout.VolumeID][]*metav1.ReserveRequest{}
	return r
}

// run sends ends until ctx ends.
func (r *reserver) run(ctx context.Context) error {
	again := time.NewTicker(endAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.kick:
		case <-again.C:
		}
		r.mu.Lock()
		var waiting []layout.VolumeID
		for id := range r.mu.ends {
			waiting = append(waiting, id)
		}
		r.mu.Unlock()
		for _, id := range waiting {
			attempt, cancel := context.WithTimeout(ctx, attachAttempt)
			if err := r.flush(attempt, id); err != nil && ctx.Err() == nil {
				r.log.Debug("end of a reservation", zap.Uint64("volume", uint64(id)), zap.Error(err))
			}
			cancel()
		}
	}
}

// end has the end of an SPC-2 reservation, or a reset, sent soon. It does not block. All attempts have the name that it gets
// here, so that it is carried out once.
func (r *reserver) end(id layout.VolumeID, q *reservation.Request) {
	m := r.message(id, q)
	r.mu.Lock()
	full := r.mu.count >= endsMax
	if q.Action == reservation.UnitReset && len(r.mu.ends[id]) >= resetsMax {
		r.mu.Unlock() // those that wait were not told yet, and tell the same
		return
	}
	if !full {
		r.mu.ends[id] = append(r.mu.ends[id], m)
		r.mu.count++
	}
	r.mu.Unlock()
	if full {
		r.log.Warn("too many ends of reservations wait for the metaserver", zap.Uint64("volume", uint64(id)))
		return
	}
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// flush sends the ends that wait for a volume. One that two callers send changes nothing the second time, and one that the
// metaserver will never take is dropped: it would keep all that comes after it waiting for ever.
func (r *reserver) flush(ctx context.Context, id layout.VolumeID) error {
	for {
		r.mu.Lock()
		var m *metav1.ReserveRequest
		if list := r.mu.ends[id]; len(list) > 0 {
			m = list[0]
		}
		r.mu.Unlock()
		if m == nil {
			return nil
		}
		_, _, err := r.send(ctx, m)
		switch {
		case err == nil || errors.Is(err, scsi.ErrAccessRevoked):
		case refusedForGood(err):
			r.log.Warn("the end of a reservation is refused and given up", zap.Uint64("volume", uint64(id)),
				zap.String("initiator", m.GetNexus().GetInitiator()), zap.Uint32("action", m.GetAction()), zap.Error(err))
		default:
			return err
		}
		r.mu.Lock()
		if i := slices.Index(r.mu.ends[id], m); i >= 0 {
			r.mu.ends[id] = slices.Delete(r.mu.ends[id], i, i+1)
			r.mu.count--
		}
		if len(r.mu.ends[id]) == 0 {
			delete(r.mu.ends, id)
		}
		r.mu.Unlock()
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
	r.told(layout.VolumeID(m.GetVolume()), now)
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
	r.told(id, now)
	return now, nil
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
