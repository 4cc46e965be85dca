package namespace

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// Limits of reservation requests.
const (
	// answeredMax is how many changes of a volume are remembered, so that their repetition changes nothing.
	answeredMax = 64
	// reservationInitiatorsMax bounds the initiator ports that one request names.
	reservationInitiatorsMax = 64
)

// reservationRecord is what is stored of a volume's reservations. It stays until the volume is deleted: versions only rise.
type reservationRecord struct {
	Volume layout.VolumeID   `json:"volume"`
	State  reservation.State `json:"state"`
	// Answered are the requests that changed something, all answered GOOD, oldest first. Those of SanitizeReport are not among
	// them: there may be thousands, and a repetition changes nothing that the first has not.
	Answered []string `json:"answered,omitempty"`
}

// Reservations are those of one volume with the access generation that they came with. The state is not to be changed.
type Reservations struct {
	Volume layout.VolumeID
	Access layout.AccessGeneration
	State  *reservation.State
	// Reset is the version of the reset that the call made which returned this, 0 if it made none.
	Reset uint64
}

// loadReservations is a part of load, after the volumes.
func (n *Namespace) loadReservations(ctx context.Context) error {
	n.mu.reservations = map[layout.VolumeID]*reservationRecord{}
	return metastore.LoadAll(ctx, n.o.Store, reservationTable, func(_ string, v *reservationRecord) error {
		n.mu.reservations[v.Volume] = v
		return nil
	})
}

// reservationsLocked returns the reservations of a volume. The caller holds the turn or mu.
func (n *Namespace) reservationsLocked(v *VolumeRecord) Reservations {
	out := Reservations{Volume: v.ID, Access: v.Access, State: &reservation.State{}}
	if rec := n.mu.reservations[v.ID]; rec != nil {
		out.State = &rec.State
	}
	return out
}

// Reserve judges a request and stores what it changes. What it takes away from somebody raises the volume's access generation
// in the same transaction, and the copysets are told before the call returns, as far as RaiseWait lets it; those that a reset
// is to be told to are awaited by AwaitRaised. request names the call: a repetition of one that changed something is answered
// GOOD, with the reservations as they are by then, and changes nothing.
func (n *Namespace) Reserve(
	ctx context.Context, volume layout.VolumeID, r *reservation.Request, request string,
) (Reservations, reservation.Status, error) {
	if len(r.Initiators) > reservationInitiatorsMax {
		return Reservations{}, reservation.NoResources, refuse.As(refuse.Exhausted, "a request names %d initiator ports, the limit is %d",
			len(r.Initiators), reservationInitiatorsMax)
	}
	var out Reservations
	var status reservation.Status
	narrowed, reset := false, r.Action == reservation.UnitReset
	err := n.update(ctx, func(x *tx) error {
		v, err := n.reservable(volume, r)
		if err != nil {
			return err
		}
		out = n.reservationsLocked(v)
		old := n.mu.reservations[volume]
		if old != nil && slices.Contains(old.Answered, request) {
			narrowed = true // wait for the copysets again
			return nil
		}
		res := out.State.Apply(r)
		if status = res.Status; !res.Changed {
			return nil
		}
		next := &reservationRecord{Volume: volume, State: *res.State}
		if old != nil {
			next.Answered = old.Answered
		}
		if r.Action != reservation.SanitizeReport {
			next.Answered = append(slices.Clone(next.Answered[max(len(next.Answered)-answeredMax+1, 0):]), request)
		}
		x.batch.Put(reservationTable, key(uint64(volume)), next)
		x.apply = append(x.apply, func() { n.mu.reservations[volume] = next })
		out.State = &next.State
		if reset {
			out.Reset = next.State.Version
		}
		if narrowed = res.Narrowed; narrowed {
			n.raise(x, []layout.VolumeID{volume})
			out.Access++
		}
		return nil
	})
	if err != nil {
		return Reservations{}, 0, err
	}
	if narrowed && reset {
		n.wake()
	} else if narrowed {
		n.o.Log.Info("reservations have changed", zap.Uint64("volume", uint64(volume)), zap.String("initiator", r.Nexus.Initiator),
			zap.Uint8("action", uint8(r.Action)), zap.Uint8("type", uint8(out.State.Type)))
		n.await(ctx, volume)
	}
	return out, status, nil
}

// AwaitRaised waits until the copysets of a volume were told of its access generation, RaiseWait at most.
func (n *Namespace) AwaitRaised(ctx context.Context, volume layout.VolumeID) { n.await(ctx, volume) }

// reservable returns the volume of a request whose initiator may use it. What gateways do for all, such as to end an SPC-2
// reservation, asks for no right: the initiator may have been denied meanwhile. The caller holds the turn or mu.
func (n *Namespace) reservable(volume layout.VolumeID, r *reservation.Request) (*VolumeRecord, error) {
	v := n.mu.volumes[volume]
	if v == nil || v.Deleting {
		return nil, refuse.As(refuse.NotFound, "there is no volume %d", volume)
	}
	own := false // of the gateways
	switch r.Action {
	case reservation.NexusLost, reservation.UnitReset, reservation.SanitizeReport, reservation.SanitizeClaim:
		own = true
	}
	if !own && n.allowed(volume, r.Nexus.Initiator) == byNone {
		return nil, refuse.As(refuse.State, "initiator %s is allowed in no target that maps volume %q: allow it first (ashlar target allow)",
			r.Nexus.Initiator, v.Name)
	}
	return v, nil
}

// VolumeReservations returns the reservations of one volume, for an initiator that may use it: its access generation is then
// one under which it may.
func (n *Namespace) VolumeReservations(volume layout.VolumeID, initiator string) (Reservations, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	r := reservation.Request{Nexus: reservation.Nexus{Initiator: strings.ToLower(initiator)}}
	v, err := n.reservable(volume, &r)
	if err != nil {
		return Reservations{}, err
	}
	return n.reservationsLocked(v), nil
}

// AllReservations returns those of the volumes that ever had any, by volume.
func (n *Namespace) AllReservations() []Reservations {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []Reservations
	for id := range n.mu.reservations {
		if v := n.mu.volumes[id]; v != nil && !v.Deleting {
			out = append(out, n.reservationsLocked(v))
		}
	}
	slices.SortFunc(out, func(a, b Reservations) int { return cmp.Compare(a.Volume, b.Volume) })
	return out
}
