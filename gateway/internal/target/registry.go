package target

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// Mediums opens the media of volumes. Its methods return at once and do not call into this package; they are called with
// the registry's lock held, or a session's.
type Mediums interface {
	// Open returns the medium of a volume as an initiator reaches it, always the same value as long as it is in use, and
	// counts one more use of it.
	Open(volume uint64, initiator string) scsi.Backend

	// Release gives back one use of what Open returned. After the last one no session of the initiator reaches the
	// volume, and all commands of those that did were cancelled.
	Release(medium scsi.Backend)

	// Abort raises the generation of (volume, initiator): what it has in flight there and was cancelled will not take
	// effect later.
	Abort(volume uint64, initiator string)

	// Acknowledged says that the initiator knows the outcome of every COMPARE AND WRITE that it sent through one of its
	// sessions to the volume.
	Acknowledged(volume uint64, initiator string)
}

// Limits bound the session table.
type Limits struct {
	Sessions             int // all sessions, discovery included, 1..65535
	SessionsPerInitiator int // of one initiator name, at least 1
}

// Registry is what one gateway exports, and the sessions that use it. Its methods may be called from any goroutine.
type Registry struct {
	mediums Mediums
	limits  Limits
	copies  *scsi.CopyManager
	now     atomic.Pointer[snapshot]

	mu struct {
		sync.Mutex
		units        map[uint64]*scsi.LogicalUnit
		maps         map[mapKey]*sharedMap
		sessions     map[pdu.TSIH]*Session
		nexuses      map[nexusKey]*Session
		perInitiator map[string]int
		lastTSIH     pdu.TSIH
	}
}

// mapKey names a LUN map.
type mapKey struct{ target, initiator string }

// sharedMap is a LUN map and the number of sessions that use it. It has one use of the medium of each of its mappings.
type sharedMap struct {
	luns *scsi.LUNMap
	uses int
}

// New returns a registry that exports nothing yet.
func New(mediums Mediums, limits Limits) *Registry {
	r := &Registry{mediums: mediums, limits: limits, copies: scsi.NewCopyManager(time.Now, rand.Reader)}
	r.now.Store(&snapshot{})
	r.mu.units = map[uint64]*scsi.LogicalUnit{}
	r.mu.maps = map[mapKey]*sharedMap{}
	r.mu.sessions = map[pdu.TSIH]*Session{}
	r.mu.nexuses = map[nexusKey]*Session{}
	r.mu.perInitiator = map[string]int{}
	return r
}

func (s *snapshot) sort() {
	for _, t := range s.targets {
		s.sorted = append(s.sorted, t)
	}
	slices.SortFunc(s.sorted, func(a, b *target) int { return cmp.Compare(a.name, b.name) })
}

// Why sessions are closed by the registry.
var (
	ErrReinstated = errors.New("target: the initiator logged in again")
	ErrDenied     = errors.New("target: the initiator may not use the target any more")
	ErrRemoved    = errors.New("target: the target was removed")
	ErrReset      = errors.New("target: the target was reset")
)

// Apply takes c over. Logins see it from now on; live sessions are told what changed: new and lost LUNs (unit attention
// 3F/0E, and their tasks on lost ones end), grown volumes (2A/09), gateways that went or came (2A/06). Sessions of
// initiators that c does not allow, and of targets that it does not have, are closed. An error says what of c can not be:
// then nothing changed, except that an error which is an ErrShrink leaves out only that.
func (r *Registry) Apply(c Config) error {
	next, err := newSnapshot(c)
	if err != nil {
		return err
	}
	var todo []func()
	r.mu.Lock()
	old := r.now.Load()
	if err := r.updateUnitsLocked(old, next); err != nil {
		r.mu.Unlock()
		return err
	}
	shrunk := r.resizeLocked(next)
	r.now.Store(next)
	for key, m := range r.mu.maps {
		todo = append(todo, r.remapLocked(key, m, next)...)
	}
	for _, s := range r.mu.sessions {
		if why := s.judge(next); why != nil {
			todo = append(todo, func() { s.Close(why) })
		}
	}
	r.mu.Unlock()
	for _, f := range todo {
		f()
	}
	return shrunk
}

// ErrShrink says that a volume would become smaller than it is in use.
var ErrShrink = errors.New("target: a volume can not shrink")

// updateUnitsLocked makes the logical units that next has and old had not, or with other properties.
func (r *Registry) updateUnitsLocked(old, next *snapshot) error {
	made := map[uint64]*scsi.LogicalUnit{}
	for id, c := range next.volumes {
		was, known := old.volumes[id]
		was.Capacity = c.Capacity
		if known && was == c {
			continue
		}
		u, err := scsi.NewLogicalUnit(c)
		if err != nil {
			return fmt.Errorf("target: volume %d: %w", id, err)
		}
		if now := next.reservations[id]; now != nil {
			u.SetReservations(now)
		}
		made[id] = u
	}
	for id, u := range made {
		r.mu.units[id] = u
	}
	for id := range r.mu.units {
		if _, ok := next.volumes[id]; !ok {
			delete(r.mu.units, id)
		}
	}
	return nil
}

// resizeLocked tells the logical units of their capacity.
func (r *Registry) resizeLocked(next *snapshot) error {
	var errs []error
	for id, c := range next.volumes {
		if err := r.mu.units[id].SetCapacity(c.Capacity); err != nil {
			errs = append(errs, fmt.Errorf("%w: volume %d: %w", ErrShrink, id, err))
		}
	}
	return errors.Join(errs...)
}

// remapLocked gives a LUN map what next says, and returns what is to be done in the sessions that use it: for the LUNs that
// went away, and about the change as such.
func (r *Registry) remapLocked(key mapKey, m *sharedMap, next *snapshot) []func() {
	before := m.luns.Mappings()
	if err := m.luns.Update(r.mappingsLocked(key, next)...); err != nil {
		panic(fmt.Sprintf("target: checked LUNs do not fit: %v", err))
	}
	after := m.luns.Mappings()
	now := map[uint16]*scsi.LogicalUnit{}
	for _, l := range after {
		now[l.LUN] = l.Unit
	}
	var lost, kept []scsi.LUN
	for _, was := range before {
		r.mediums.Release(was.Backend)
		if now[was.LUN] == was.Unit {
			kept = append(kept, scsi.FlatLUN(was.LUN))
		} else {
			lost = append(lost, scsi.FlatLUN(was.LUN))
		}
	}
	changed := len(kept) > 0 && (len(lost) > 0 || len(after) > len(kept))
	var todo []func()
	for _, s := range r.mu.sessions {
		if s.key() != key {
			continue
		}
		for _, lun := range lost {
			todo = append(todo, func() { s.removeUnit(lun) })
		}
		if changed {
			todo = append(todo, func() { s.lunsChanged(kept[0]) })
		}
	}
	return todo
}

// mappingsLocked returns the LUNs of a target for an initiator; none if it has no right to them. Their media are opened.
func (r *Registry) mappingsLocked(key mapKey, s *snapshot) []scsi.Mapping {
	t := s.targets[key.target]
	if t == nil {
		return nil
	}
	if _, ok := t.find(key.initiator); !ok {
		return nil
	}
	out, groups := make([]scsi.Mapping, 0, len(t.luns)), s.groups(t, key.initiator)
	for _, l := range t.luns {
		out = append(out, scsi.Mapping{
			LUN: l.Number, Unit: r.mu.units[l.Volume], Backend: r.mediums.Open(l.Volume, key.initiator), ReadOnly: l.ReadOnly,
			Groups: groups,
		})
	}
	return out
}

// Targets implements login.TargetLister: the target of that name, or all if name is empty, as far as initiator may use
// them, with the portals of all gateways.
func (r *Registry) Targets(initiator, name string) []login.TargetRecord {
	s := r.now.Load()
	var out []login.TargetRecord
	for _, t := range s.sorted {
		if name != "" && t.name != name {
			continue
		}
		auth, ok := t.find(initiator)
		if !ok {
			continue
		}
		rec := login.TargetRecord{Name: t.name, Auth: auth}
		for _, p := range s.portals {
			rec.Addresses = append(rec.Addresses, fmt.Sprintf("%s,%d", p.Address, p.Group))
		}
		out = append(out, rec)
	}
	return out
}

// Unit returns the logical unit of a volume, or nil.
func (r *Registry) Unit(volume uint64) *scsi.LogicalUnit {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.units[volume]
}

// Sessions returns the sessions that live now, in no order.
func (r *Registry) Sessions() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Session, 0, len(r.mu.sessions))
	for _, s := range r.mu.sessions {
		out = append(out, s)
	}
	return out
}
