package metarpc

import (
	"context"
	"encoding/hex"
	"math"
	"strings"
	"sync"
	"time"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// requestLen is the length of a reservation request's name, in bytes.
const requestLen = 16

// knownWait bounds how long a change of mode pages, or the begin of a SANITIZE, waits for the other gateways.
const knownWait = time.Second

// patternMax bounds what a SANITIZE writes to each logical block, in bytes.
const patternMax = 4096

// Reserve implements metav1.NodeServer.
func (n *node) Reserve(ctx context.Context, m *metav1.ReserveRequest) (*metav1.ReserveReply, error) {
	t := termOf(ctx)
	if t.Topology.GatewayName(m.GetGateway()) == "" {
		return nil, refuse.As(refuse.NotFound, "gateway %d is not registered: register first", m.GetGateway())
	}
	r, err := reserveRequest(m)
	if err != nil {
		return nil, err
	}
	for _, g := range t.Topology.View().Gateways {
		r.Ports = append(r.Ports, g.RelativePort)
	}
	now, status, err := t.Namespace.Reserve(ctx, layout.VolumeID(m.GetVolume()), r, hex.EncodeToString(m.GetRequest()))
	if err != nil {
		return nil, err
	}
	if now.Reset != 0 {
		t.resets.made(resetKey{now.Volume, now.Reset}, time.Now())
	}
	switch {
	case status != reservation.Good: // nothing has changed
	case r.Action == reservation.ModeSelect, r.Action == reservation.SanitizeBegin, r.Action == reservation.SanitizeExit:
		// MODE SENSE, and what is refused meanwhile, are answered from what each gateway knows.
		known := func() []topology.Serving { return others(t.Topology, m.GetGateway()) }
		if _, err := t.Exports.await(ctx, known, time.Now().Add(knownWait)); err != nil {
			return nil, err
		}
	}
	return &metav1.ReserveReply{Status: uint32(status), Reservations: reservations(now)}, nil
}

// ShowReservations implements metav1.NodeServer.
func (n *node) ShowReservations(ctx context.Context, m *metav1.ShowReservationsRequest) (*metav1.VolumeReservations, error) {
	now, err := termOf(ctx).Namespace.VolumeReservations(layout.VolumeID(m.GetVolume()), m.GetInitiator())
	if err != nil {
		return nil, err
	}
	return reservations(now), nil
}

// AwaitReset implements metav1.NodeServer.
func (n *node) AwaitReset(ctx context.Context, m *metav1.AwaitResetRequest) (*metav1.AwaitResetReply, error) {
	t := termOf(ctx)
	key := resetKey{layout.VolumeID(m.GetVolume()), m.GetVersion()}
	until := t.resets.await(key, time.Now())
	defer t.resets.forget(key)
	var raised sync.WaitGroup
	raised.Go(func() {
		bounded, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		t.Namespace.AwaitRaised(bounded, key.volume)
	})
	defer raised.Wait()
	pending, err := t.Exports.await(ctx, func() []topology.Serving {
		return t.resets.others(key, m.GetGateway(), t.Topology)
	}, until)
	return &metav1.AwaitResetReply{PendingGateways: pending}, err
}

// ResetAwaited implements metav1.NodeServer.
func (n *node) ResetAwaited(ctx context.Context, m *metav1.ResetAwaitedRequest) (*metav1.ResetAwaitedReply, error) {
	t := termOf(ctx)
	if t.Topology.GatewayName(m.GetGateway()) == "" {
		return nil, refuse.As(refuse.NotFound, "gateway %d is not registered: register first", m.GetGateway())
	}
	left := t.resets.left(ctx, resetKey{layout.VolumeID(m.GetVolume()), m.GetVersion()}, m.GetGateway())
	return &metav1.ResetAwaitedReply{LeftMs: uint32(left.Milliseconds())}, nil
}

// reserveRequest takes a request from its message, without the target ports.
func reserveRequest(m *metav1.ReserveRequest) (*reservation.Request, error) {
	if len(m.GetRequest()) != requestLen {
		return nil, refuse.As(refuse.Invalid, "the name of a reservation request has %d bytes, not %d", requestLen, len(m.GetRequest()))
	}
	if m.GetAction() > 0xFF || m.GetScope() > 0xFF || m.GetType() > 0xFF || m.GetSettings() > 0xFF {
		return nil, refuse.As(refuse.Invalid, "action, scope, type or settings of a reservation request are more than a byte")
	}
	r := &reservation.Request{
		Action: reservation.Action(m.GetAction()), Scope: byte(m.GetScope()), Type: reservation.Type(m.GetType()),
		Key: reservation.Key(m.GetKey()), ServiceKey: reservation.Key(m.GetServiceKey()), APTPL: m.GetAptpl(),
		AllPorts: m.GetAllPorts(), SpecIPT: m.GetSpecIPt(), Unregister: m.GetUnregister(), Since: m.GetSince(),
		Settings: reservation.Settings(m.GetSettings()), Save: m.GetSave(),
	}
	var err error
	if r.Sanitize, err = sanitize(m.GetSanitize(), r.Action); err != nil {
		return nil, err
	}
	if r.Nexus, err = nexus(m.GetNexus()); err != nil {
		return nil, err
	}
	for _, i := range m.GetInitiators() {
		x, err := nexus(i)
		if err != nil {
			return nil, err
		}
		r.Initiators = append(r.Initiators, x)
	}
	if m.GetDestination() != nil {
		if r.Destination, err = nexus(m.GetDestination()); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// sanitize takes a SANITIZE from its message.
func sanitize(m *metav1.Sanitize, a reservation.Action) (*reservation.Sanitize, error) {
	switch {
	case a != reservation.SanitizeBegin && a != reservation.SanitizeReport && a != reservation.SanitizeClaim:
		return nil, nil
	case m == nil:
		return nil, refuse.As(refuse.Invalid, "the request about a SANITIZE does not say which")
	case a == reservation.SanitizeBegin && (m.GetSize() == 0 || m.GetSize() > math.MaxInt64/maxPasses || m.GetPasses() > maxPasses ||
		len(m.GetPattern()) > patternMax || m.GetPasses() > 0 && len(m.GetPattern()) == 0):
		return nil, refuse.As(refuse.Invalid, "a SANITIZE of %d bytes with %d passes of %d bytes can not be", m.GetSize(), m.GetPasses(),
			len(m.GetPattern()))
	}
	return &reservation.Sanitize{
		ID: m.GetId(), Passes: uint8(m.GetPasses()), Pattern: m.GetPattern(), Invert: m.GetInvert(), Exit: m.GetExit(),
		Size: int64(m.GetSize()), Done: int64(m.GetDone()), Failed: m.GetFailed(), Claim: m.GetClaim(),
	}, nil
}

// maxPasses is the most passes of OVERWRITE (SBC-4 5.34.3).
const maxPasses = 31

// sanitizeMessage makes the message of a SANITIZE, nil if there is none.
func sanitizeMessage(z *reservation.Sanitize) *metav1.Sanitize {
	if z == nil {
		return nil
	}
	return &metav1.Sanitize{
		Id: z.ID, Passes: uint32(z.Passes), Pattern: z.Pattern, Invert: z.Invert, Exit: z.Exit, Size: uint64(z.Size),
		Done: uint64(z.Done), Failed: z.Failed, Claim: z.Claim, Port: uint32(z.Port), Beat: z.Beat,
	}
}

// nexus takes a nexus from its message.
func nexus(m *metav1.Nexus) (reservation.Nexus, error) {
	x := reservation.Nexus{Initiator: strings.ToLower(m.GetInitiator()), Port: uint16(m.GetPort()), AnyISID: len(m.GetIsid()) == 0}
	if _, err := namespace.InitiatorName(x.Initiator); err != nil {
		return x, err
	}
	if m.GetPort() == 0 || m.GetPort() > 0xFFFF {
		return x, refuse.As(refuse.Invalid, "%d is not a relative target port identifier", m.GetPort())
	}
	if !x.AnyISID && copy(x.ISID[:], m.GetIsid()) != len(m.GetIsid()) || !x.AnyISID && len(m.GetIsid()) != len(x.ISID) {
		return x, refuse.As(refuse.Invalid, "an ISID has %d bytes, not %d", len(x.ISID), len(m.GetIsid()))
	}
	return x, nil
}

// reservations makes the message of a volume's reservations.
func reservations(r namespace.Reservations) *metav1.VolumeReservations {
	s := r.State
	out := &metav1.VolumeReservations{
		Volume: uint64(r.Volume), AccessGeneration: uint64(r.Access), Version: s.Version, Generation: s.Generation,
		Type: uint32(s.Type), Aptpl: s.APTPL, IgnoreIsid: s.IgnoreISID,
		Settings: uint32(s.Modes.Now), SavedSettings: uint32(s.Modes.Saved), Sanitize: sanitizeMessage(s.Sanitize),
	}
	for _, g := range s.Registrations {
		out.Registrations = append(out.Registrations, &metav1.Registration{Nexus: nexusMessage(g.Nexus), Key: uint64(g.Key)})
	}
	if s.Holder.Initiator != "" {
		out.Holder = nexusMessage(s.Holder)
	}
	if s.Legacy != nil {
		out.Legacy, out.LegacySince = nexusMessage(s.Legacy.Nexus), s.Legacy.Since
	}
	for _, e := range s.Events {
		m := &metav1.ReservationEvent{
			Version: e.Version, Attention: uint32(e.Attention), Abort: e.Abort, Everybody: e.Everybody, ExceptPort: uint32(e.Except),
		}
		if e.By.Initiator != "" {
			m.By = nexusMessage(e.By)
		}
		for _, x := range e.Nexuses {
			m.Nexuses = append(m.Nexuses, nexusMessage(x))
		}
		out.Events = append(out.Events, m)
	}
	return out
}

func nexusMessage(x reservation.Nexus) *metav1.Nexus {
	m := &metav1.Nexus{Initiator: x.Initiator, Port: uint32(x.Port)}
	if !x.AnyISID {
		m.Isid = x.ISID[:]
	}
	return m
}
