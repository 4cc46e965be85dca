package namespace

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/storage/iscsiname"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// The moves that are remembered of an attachment.
const (
	// movesWindow is the time over which moves are counted.
	movesWindow = 10 * time.Minute
	// movesMax bounds how many moves are remembered.
	movesMax = 64
)

// initiatorRecord gives an initiator's name its id.
type initiatorRecord struct {
	ID   layout.InitiatorID `json:"id"`
	Name string             `json:"name"`
}

// Attachment says which gateway an initiator's path to a volume goes through.
type Attachment struct {
	Volume      layout.VolumeID    `json:"volume"`
	InitiatorID layout.InitiatorID `json:"initiator_id"`
	Initiator   string             `json:"initiator"`
	Epoch       layout.Epoch       `json:"epoch"`
	Gateway     uint64             `json:"gateway"`
	// SinceUnixMs is when the path came to the gateway, MovesUnixMs when it moved from one to another, oldest first.
	SinceUnixMs int64   `json:"since_unix_ms"`
	MovesUnixMs []int64 `json:"moves_unix_ms,omitempty"`
	// Any: when the epoch was issued only an entry for any initiator let the initiator in.
	Any bool `json:"any,omitempty"`
}

// Moves counts the moves of the last ten minutes before now.
func (a *Attachment) Moves(now time.Time) int {
	n := 0
	for _, m := range a.MovesUnixMs {
		if now.UnixMilli()-m < movesWindow.Milliseconds() {
			n++
		}
	}
	return n
}

func attachmentKey(v layout.VolumeID, i layout.InitiatorID) string {
	return key(uint64(v)) + "." + key(uint64(i))
}

func (n *Namespace) setAttachmentLocked(a *Attachment) {
	m := n.mu.attachments[a.Volume]
	if m == nil {
		m = map[layout.InitiatorID]*Attachment{}
		n.mu.attachments[a.Volume] = m
	}
	if m[a.InitiatorID] == nil {
		n.mu.attached[a.InitiatorID]++
		n.mu.pairs++
	}
	m[a.InitiatorID] = a
}

// forgetAttachmentLocked is the end of an attachment, and of the name's id if it has no other: a name that comes back gets an
// id that nobody had.
func (n *Namespace) forgetAttachmentLocked(a *Attachment) {
	delete(n.mu.attachments[a.Volume], a.InitiatorID)
	n.mu.pairs--
	if n.mu.attached[a.InitiatorID]--; n.mu.attached[a.InitiatorID] == 0 {
		delete(n.mu.attached, a.InitiatorID)
		delete(n.mu.initiators, a.Initiator)
	}
}

// Attach makes gateway the owner of an initiator's path to a volume, with a new epoch, and returns the attachment and the
// volume's access generation. The initiator must be allowed in a target that maps the volume. A gateway that says which
// epoch it had (0: none) and still owns the path keeps that epoch, and nothing is stored.
func (n *Namespace) Attach(
	ctx context.Context, gateway uint64, volume layout.VolumeID, initiator string, had layout.Epoch,
) (*Attachment, layout.AccessGeneration, error) {
	name := strings.ToLower(initiator)
	if name == "" || len(name) > iscsiname.Max {
		return nil, 0, refuse.As(refuse.Invalid, "an initiator's name has 1 to %d bytes, this one has %d", iscsiname.Max, len(name))
	}
	var out *Attachment
	var access layout.AccessGeneration
	err := n.update(ctx, func(x *tx) error {
		x.unseen = true
		v := n.mu.volumes[volume]
		if v == nil || v.Deleting {
			return refuse.As(refuse.NotFound, "there is no volume %d", volume)
		}
		by := n.allowed(volume, name)
		if rec := n.mu.reservations[volume]; name == reservation.SanitizeInitiator && rec != nil && rec.State.Sanitize.Runs() {
			by = byName
		}
		if by == byNone {
			return refuse.As(refuse.State, "initiator %s is allowed in no target that maps volume %q: allow it first (ashlar target allow)",
				name, v.Name)
		}
		access = v.Access
		id, known := n.mu.initiators[name]
		old := n.mu.attachments[volume][id]
		if old == nil {
			if err := n.room(v, name, by, known); err != nil {
				return err
			}
		}
		if !known {
			id = x.ids.Initiator
			x.ids.Initiator++
			x.batch.Put(initiatorTable, name, initiatorRecord{ID: id, Name: name})
			x.apply = append(x.apply, func() { n.mu.initiators[name] = id })
		}
		if old != nil && had != 0 && old.Gateway == gateway && old.Epoch == had {
			out = old
			return nil
		}
		out = n.next(old, gateway)
		out.Volume, out.InitiatorID, out.Initiator, out.Any = volume, id, name, by == byAny
		x.batch.Put(attachmentTable, attachmentKey(volume, id), out)
		x.apply = append(x.apply, func() { n.setAttachmentLocked(out) })
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return out, access, nil
}

// next makes the attachment that follows old, which is nil for the first one.
func (n *Namespace) next(old *Attachment, gateway uint64) *Attachment {
	now := n.o.Now().UnixMilli()
	if old == nil {
		return &Attachment{Epoch: 1, Gateway: gateway, SinceUnixMs: now}
	}
	a := &Attachment{Epoch: old.Epoch + 1, Gateway: gateway, SinceUnixMs: old.SinceUnixMs}
	a.MovesUnixMs = slices.DeleteFunc(slices.Clone(old.MovesUnixMs), func(m int64) bool {
		return now-m >= movesWindow.Milliseconds()
	})
	if old.Gateway != gateway {
		a.SinceUnixMs = now
		a.MovesUnixMs = append(a.MovesUnixMs, now)
		if n := len(a.MovesUnixMs) - movesMax; n > 0 {
			a.MovesUnixMs = slices.Clone(a.MovesUnixMs[n:])
		}
	}
	return a
}

// admission says what lets an initiator use a volume.
type admission uint8

const (
	byNone admission = iota
	// byAny: only entries for any initiator.
	byAny
	byName
)

// allowed tells what lets an initiator use a volume through some target. The caller holds the turn or mu.
func (n *Namespace) allowed(volume layout.VolumeID, initiator string) admission {
	best := byNone
	for _, t := range n.mu.targets {
		if !slices.ContainsFunc(t.LUNs, func(l LUN) bool { return l.Volume == volume }) {
			continue
		}
		for _, g := range t.Grants {
			switch g.Name {
			case initiator:
				return byName
			case AnyInitiator:
				best = byAny
			}
		}
	}
	return best
}

// View is a picture of the namespace at one moment. The records in it are not to be changed.
type View struct {
	Volumes []*VolumeRecord // by name, those being deleted last
	Targets []*TargetRecord // by name
	Mapped  map[layout.VolumeID][]string
	// Sanitizing holds the SANITIZEs that are under way or have failed.
	Sanitizing map[layout.VolumeID]*reservation.Sanitize
}

// View takes a picture.
func (n *Namespace) View() *View {
	n.mu.RLock()
	defer n.mu.RUnlock()
	v := &View{Mapped: map[layout.VolumeID][]string{}, Sanitizing: map[layout.VolumeID]*reservation.Sanitize{}}
	for id, r := range n.mu.reservations {
		if r.State.Sanitize != nil {
			v.Sanitizing[id] = r.State.Sanitize
		}
	}
	v.Volumes = slices.SortedFunc(maps.Values(n.mu.volumes), func(a, b *VolumeRecord) int {
		switch {
		case a.Deleting != b.Deleting && b.Deleting:
			return -1
		case a.Deleting != b.Deleting:
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	v.Targets = slices.SortedFunc(maps.Values(n.mu.targets), func(a, b *TargetRecord) int { return cmp.Compare(a.IQN, b.IQN) })
	for _, t := range v.Targets {
		for _, l := range t.LUNs {
			v.Mapped[l.Volume] = append(v.Mapped[l.Volume], t.IQN+"/"+strconv.FormatUint(uint64(l.LUN), 10))
		}
	}
	return v
}

// Attachments returns those of a volume, by name. They are not to be changed.
func (n *Namespace) Attachments(id layout.VolumeID) []*Attachment {
	n.mu.RLock()
	list := slices.Collect(maps.Values(n.mu.attachments[id]))
	n.mu.RUnlock()
	slices.SortFunc(list, func(a, b *Attachment) int { return cmp.Compare(a.Initiator, b.Initiator) })
	return list
}

// Moving returns the attachments that moved more often than many times in the last ten minutes, in no order.
func (n *Namespace) Moving(many int) []*Attachment {
	n.mu.RLock()
	defer n.mu.RUnlock()
	now := n.o.Now()
	var out []*Attachment
	for _, m := range n.mu.attachments {
		for _, a := range m {
			if len(a.MovesUnixMs) > many && a.Moves(now) > many {
				out = append(out, a)
			}
		}
	}
	return out
}

// OpenGrant returns the secrets of an entry as they are.
func (n *Namespace) OpenGrant(iqn string, g Grant) (NewGrant, error) {
	out := NewGrant{Name: g.Name, ChapUser: g.ChapUser, MutualUser: g.MutualUser}
	for _, s := range []struct {
		sealed []byte
		which  string
		to     *string
	}{
		{g.ChapSecret, chapPlace, &out.ChapSecret},
		{g.ChapOldSecret, chapOldPlace, &out.ChapOldSecret},
		{g.MutualSecret, mutualPlace, &out.MutualSecret},
	} {
		if s.sealed == nil {
			continue
		}
		if n.o.Sealer == nil {
			return NewGrant{}, ErrSealKey
		}
		secret, err := n.o.Sealer.Open(s.sealed, place(iqn, g.Name, s.which))
		if err != nil {
			return NewGrant{}, err
		}
		*s.to = secret
	}
	return out, nil
}
