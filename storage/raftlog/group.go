package raftlog

import (
	"math/bits"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Group is the log of one copyset. Its methods have the meaning and the errors of those of raft.Storage; what a
// Storage needs more, the configuration and the snapshot, the caller adds. All methods may be called concurrently
// with each other and with Append. They show what was durable (or written, see Update.MustSync) when the last Append
// returned nil, also after the log has failed.
type Group struct {
	id  layout.CopysetID
	log *Log

	mu struct {
		sync.RWMutex
		removed bool
		groupState
		// slots[i] is entry trunc+1+i.
		slots []slot
		// cut is how many slots were cut off the front of the array that slots lies in.
		cut int
	}

	// stage is what the group will be after the Append under way. Only the log writer uses it.
	stage stage
}

// groupState is what a state record holds.
type groupState struct {
	hs               hardState
	trunc, truncTerm uint64
	// home is the segment of the last state record, nil before the first.
	home *segment
}

// slot is the place of one entry.
type slot struct {
	term uint64
	seg  *segment
	// entry is the entry if it is in the cache.
	entry *raftpb.Entry
	off   uint32
	// size is the length of the record's payload, and movedBit.
	size uint32
	// side is where the tail of a sideloaded entry is, else nil.
	side *sideRef
}

// movedBit in slot.size tells an entry that Compact wrote again.
const movedBit = 1 << 31

func (s *slot) length() int { return int(s.size &^ movedBit) }

// full returns the length of the entry's data.
func (s *slot) full() int {
	if s.side != nil {
		return s.side.size
	}
	return s.length()
}
func (s *slot) moved() bool { return s.size&movedBit != 0 }
func (s *slot) bytes() int  { return recordSize(s.length()) }

// wireSize is the length of the entry's protobuf encoding, by which raft counts.
func (s *slot) wireSize(index uint64) uint64 {
	const typeField = 2
	n := 1 + varintSize(s.term) + 1 + varintSize(index) + typeField
	if l := s.full(); l > 0 {
		n += 1 + varintSize(uint64(l)) + l
	}
	return uint64(n)
}

func varintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// Copyset returns the group's copyset.
func (g *Group) Copyset() layout.CopysetID { return g.id }

// HardState returns a copy of the last hard state, nil if none was ever set.
func (g *Group) HardState() *raftpb.HardState {
	g.mu.RLock()
	hs := g.mu.hs
	g.mu.RUnlock()
	if hs == (hardState{}) {
		return nil
	}
	return &raftpb.HardState{Term: &hs.term, Vote: &hs.vote, Commit: &hs.commit}
}

// FirstIndex returns the index of the first entry, one above the truncation point.
func (g *Group) FirstIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.mu.removed {
		return 0, ErrNoGroup
	}
	return g.mu.trunc + 1, nil
}

// LastIndex returns the index of the last entry, or the truncation point if there is none.
func (g *Group) LastIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.mu.removed {
		return 0, ErrNoGroup
	}
	return g.lastLocked(), nil
}

func (g *Group) lastLocked() uint64 { return g.mu.trunc + uint64(len(g.mu.slots)) }

// Term returns the term of entry i, from FirstIndex()-1 on: raft.ErrCompacted below, raft.ErrUnavailable above.
func (g *Group) Term(i uint64) (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	switch {
	case g.mu.removed:
		return 0, ErrNoGroup
	case i < g.mu.trunc:
		return 0, raft.ErrCompacted
	case i == g.mu.trunc:
		return g.mu.truncTerm, nil
	case i > g.lastLocked():
		return 0, raft.ErrUnavailable
	}
	return g.mu.slots[i-g.mu.trunc-1].term, nil
}

// Entries returns the entries [lo, hi), as many as fit in maxSize bytes of their protobuf encoding but at least one.
// The caller owns the slice; the entries are shared and must not be changed. Errors: raft.ErrCompacted,
// raft.ErrUnavailable, ErrNoGroup, *CorruptError, or what reading the file returned.
func (g *Group) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	entries, absent, err := g.collect(lo, hi, maxSize)
	for i := range absent {
		a := &absent[i]
		if err == nil {
			entries[a.index-lo], err = g.readEntry(a.index, &a.slot)
		}
		a.seg.readers.Add(-1)
	}
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// absentee is an entry that has to be read from its segment, of which it holds a reader's reference.
type absentee struct {
	slot
	index uint64
}

// collect returns the cached entries of [lo, hi) with nil for those that are not, and these.
func (g *Group) collect(lo, hi, maxSize uint64) ([]*raftpb.Entry, []absentee, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	switch {
	case g.mu.removed:
		return nil, nil, ErrNoGroup
	case lo <= g.mu.trunc:
		return nil, nil, raft.ErrCompacted
	case hi > g.lastLocked()+1 || lo > hi:
		return nil, nil, raft.ErrUnavailable
	case lo == hi:
		return nil, nil, nil
	}
	slots := g.mu.slots[lo-g.mu.trunc-1 : hi-g.mu.trunc-1]
	total, missing, n := uint64(0), 0, 0
	for i := range slots {
		if total += slots[i].wireSize(lo + uint64(i)); total > maxSize && i > 0 {
			break
		}
		if slots[i].entry == nil {
			missing++
		}
		n++
	}
	entries := make([]*raftpb.Entry, n)
	var absent []absentee
	if missing > 0 {
		absent = make([]absentee, 0, missing)
	}
	for i := range entries {
		if entries[i] = slots[i].entry; entries[i] == nil {
			slots[i].seg.readers.Add(1)
			absent = append(absent, absentee{slot: slots[i], index: lo + uint64(i)})
		}
	}
	return entries, absent, nil
}

// storedEntry lets one allocation hold an entry and the numbers that it points to.
type storedEntry struct {
	raftpb.Entry
	term, index uint64
	typ         raftpb.EntryType
}

// readRecord reads the record of an entry back and checks that it is the one.
func readRecord(id layout.CopysetID, index uint64, s slot) ([]byte, record, error) {
	buf := make([]byte, recordHeader+s.length())
	if _, err := s.seg.file.ReadAt(buf, int64(s.off)); err != nil {
		return nil, record{}, err
	}
	r, _, ok := parseRecord(buf, s.seg.seed)
	if !ok || r.typ != s.recordType() || r.copyset != id || r.index != index || r.term != s.term ||
		int(r.length) != s.length() {
		return nil, record{}, &CorruptError{
			Segment: s.seg.name(), Offset: int64(s.off), Copyset: id, Reason: "an entry does not read back as written",
		}
	}
	return buf, r, nil
}

// recordType is the type of the entry's record.
func (s *slot) recordType() recordType {
	if s.side != nil {
		return recordSide
	}
	return recordEntry
}

func (g *Group) readEntry(index uint64, s *slot) (*raftpb.Entry, error) {
	buf, r, err := readRecord(g.id, index, *s)
	if err != nil {
		return nil, err
	}
	data := buf[recordHeader:]
	if s.side != nil {
		if data, err = g.log.loadTail(g, index, s, data); err != nil {
			return nil, err
		}
	}
	e := &storedEntry{term: s.term, index: index, typ: raftpb.EntryType(r.entry)}
	e.Term, e.Index, e.Type = &e.term, &e.index, &e.typ
	if len(data) > 0 {
		e.Data = data
	}
	return &e.Entry, nil
}

// The methods below are the log writer's. Each takes the lock for a moment.

// setState takes over a new state, which lies in segment st.home; restart drops all entries first.
func (g *Group) setState(st groupState, restart bool, c *cache) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if restart {
		g.dropAllLocked(c)
	}
	if g.mu.home != nil {
		g.mu.home.drop(recordSize(statePayload))
	}
	st.home.hold(recordSize(statePayload))
	if st.trunc > g.mu.trunc {
		g.cutFrontLocked(int(min(st.trunc-g.mu.trunc, uint64(len(g.mu.slots)))), c)
	}
	g.mu.groupState = st
}

// cutWaste is how many slots may be wasted at the front of the array before it is copied.
const cutWaste = 64

func (g *Group) cutFrontLocked(n int, c *cache) {
	g.dropLocked(g.mu.slots[:n], c)
	g.mu.slots = g.mu.slots[n:]
	if g.mu.cut += n; g.mu.cut > len(g.mu.slots)+cutWaste {
		g.mu.slots = append(make([]slot, 0, len(g.mu.slots)), g.mu.slots...)
		g.mu.cut = 0
	}
}

// dropLocked counts slots out that are about to go.
func (g *Group) dropLocked(slots []slot, c *cache) {
	for i := range slots {
		s := &slots[i]
		s.seg.drop(s.bytes())
		c.forget(s)
		if s.side != nil {
			c.dropped = append(c.dropped, s.side.extents...)
		}
	}
	clear(slots)
}

func (g *Group) dropAllLocked(c *cache) {
	g.dropLocked(g.mu.slots, c)
	g.mu.slots, g.mu.cut = nil, 0
}

// remove drops everything.
func (g *Group) remove(c *cache) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropAllLocked(c)
	if g.mu.home != nil {
		g.mu.home.drop(recordSize(statePayload))
	}
	g.mu.groupState = groupState{}
	g.mu.removed = true
}

// extend replaces the entries from that of the step on by the step's, whose records follow each other in seg from off on. It
// returns the offset behind them.
func (g *Group) extend(st *step, seg *segment, off uint32, c *cache) uint32 {
	entries := st.entries
	g.mu.Lock()
	defer g.mu.Unlock()
	at := int(entries[0].GetIndex() - g.mu.trunc - 1)
	g.dropLocked(g.mu.slots[at:], c)
	g.mu.slots = g.mu.slots[:at]
	if cap(g.mu.slots)-at < len(entries) {
		g.mu.cut = 0 // append copies
	}
	for i, e := range entries {
		s := slot{term: e.GetTerm(), seg: seg, off: off, size: uint32(len(e.GetData()))}
		if st.refs != nil && st.refs[i] != nil {
			s.side = st.refs[i]
			s.size = uint32(s.side.stored())
		}
		seg.hold(s.bytes())
		if c.admit(g, e, &s) {
			s.entry = e
		}
		off += uint32(s.bytes())
		g.mu.slots = append(g.mu.slots, s)
	}
	return off
}
