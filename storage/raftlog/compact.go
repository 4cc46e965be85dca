package raftlog

import (
	"errors"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/spare"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// moveShare is the part of a segment's size that live entries may have for Compact to move them: one in moveShare.
const moveShare = 4

// sparesKept is how many times Options.Spares freed segments are kept at most: a log that has been long will be long again,
// and to write over a file costs half of making one.
const sparesKept = 4

// Compaction is what one Compact did.
type Compaction struct {
	// Freed is the number of segments given back.
	Freed int
	// Moved is how many bytes of live records were written again.
	Moved int64
	// Pinning are the copysets whose entries keep the oldest segment, if no segment could be freed: a checkpoint of
	// them and the Update.TruncateTo behind it will free it.
	Pinning []layout.CopysetID
	// Damaged tells of an entry that can not be read back, and so not be moved; its copyset is in Pinning then: once the entry
	// is cut off, the segment is freed like any other. nil: there is none.
	Damaged *CorruptError
	// More tells that another call may free more at once.
	More bool
}

// relocation is what has to be written again so that the oldest segments can be freed.
type relocation struct {
	floor   uint64 // the first segment that stays
	empty   uint64 // the first that stays if nothing is moved
	states  []*Group
	entries []movedEntry
	size    int // of the batch in bytes
}

// movedEntry is an entry on its way to a new place.
type movedEntry struct {
	g     *Group
	index uint64
	slot  slot
	to    uint32
}

// Compact frees the oldest segments while nothing, or little, in them is still needed; what is needed it writes again
// at the end of the log, of one segment at most per call. See the package comment. It is cheap when there is nothing
// to do. An entry that can not be read back is no failure of the log: it keeps its segment (Compaction.Damaged). Errors are those
// of Append.
func (l *Log) Compact() (Compaction, error) {
	l.w.Lock()
	defer l.w.Unlock()
	if err := l.usable(); err != nil {
		return Compaction{}, err
	}
	l.round++
	if err := l.buryZombies(); err != nil {
		return Compaction{}, err
	}
	rel, out := l.survey()
	if rel.floor == l.floor {
		return out, nil
	}
	damaged, err := l.move(&rel)
	if damaged != nil {
		out = Compaction{Pinning: []layout.CopysetID{damaged.Copyset}, Damaged: damaged}
		if rel = (relocation{floor: rel.empty, size: batchHeader}); rel.floor == l.floor {
			return out, nil
		}
		_, err = l.move(&rel)
	}
	if err != nil {
		return Compaction{}, err
	}
	out.Moved = int64(rel.size - batchHeader)
	out.Freed, err = l.free(rel.floor)
	l.releaseTails()
	return out, err
}

// survey decides which segments can be freed and what has to be moved for that.
func (l *Log) survey() (relocation, Compaction) {
	rel := relocation{floor: l.floor, empty: l.floor, size: batchHeader}
	var out Compaction
	segs := l.segments()
	if len(segs) == 1 {
		return rel, out
	}
	groups := l.groups()
	for _, s := range segs[:len(segs)-1] {
		if s.records.Load() == 0 {
			rel.floor = s.number + 1
			if len(rel.states)+len(rel.entries) == 0 {
				rel.empty = rel.floor
			}
			continue
		}
		if len(rel.states)+len(rel.entries) > 0 {
			out.More = true
			break
		}
		states, entries, pinning := liveIn(s, groups, l.opts.SegmentSize/moveShare)
		if pinning != nil {
			if rel.floor == l.floor {
				out.Pinning = pinning
			}
			break
		}
		rel.states, rel.entries, rel.floor = states, entries, s.number+1
	}
	rel.size += len(rel.states) * recordSize(statePayload)
	for i := range rel.entries {
		rel.size += rel.entries[i].slot.bytes()
	}
	return rel, out
}

// liveIn returns what is live in the oldest segment s. If its entries have more than limit bytes, or one of them was
// moved before, it returns the copysets that they belong to as pinning.
func liveIn(s *segment, groups []*Group, limit int64) (states []*Group, entries []movedEntry, pinning []layout.CopysetID) {
	var owners []layout.CopysetID
	total, movable := int64(0), true
	for _, g := range groups {
		g.mu.RLock()
		if g.mu.home == s {
			states = append(states, g)
		}
		before := len(entries)
		for i := range g.mu.slots {
			// The moved entries are at the front, and the others ascend by segment.
			sl := g.mu.slots[i]
			if sl.seg != s {
				if sl.moved() {
					continue
				}
				break
			}
			movable = movable && !sl.moved()
			total += int64(sl.bytes())
			entries = append(entries, movedEntry{g: g, index: g.mu.trunc + 1 + uint64(i), slot: sl})
		}
		g.mu.RUnlock()
		if len(entries) > before {
			owners = append(owners, g.id)
		}
	}
	if !movable || total > limit {
		return nil, nil, owners
	}
	return states, entries, nil
}

// move writes the relocation as one batch that carries the new floor, syncs it and shows the new places. When an entry can not be
// read back nothing is changed.
func (l *Log) move(rel *relocation) (damaged *CorruptError, err error) {
	if err := l.room(int64(rel.size), true); err != nil {
		return nil, err
	}
	l.begin()
	seed := l.active.seed
	for _, g := range rel.states {
		hs := g.mu.hs.payload() // only the log writer changes it
		r := l.record(recordState, g, g.mu.trunc, g.mu.truncTerm)
		l.buf = r.append(l.buf, hs[:], seed)
	}
	for i := range rel.entries {
		e := &rel.entries[i]
		b, r, err := readRecord(e.g.id, e.index, e.slot)
		if err != nil {
			if !errors.As(err, &damaged) {
				damaged = &CorruptError{Segment: e.slot.seg.name(), Offset: int64(e.slot.off), Copyset: e.g.id, Reason: err.Error()}
			}
			return damaged, nil
		}
		e.to = uint32(l.off) + uint32(len(l.buf))
		r.flags |= flagMoved
		r.batch = uint32(l.nextSeq)
		l.buf = r.append(l.buf, b[recordHeader:], seed)
	}
	floor := l.floor
	l.floor = rel.floor
	if err = l.write(); err == nil {
		err = l.sync()
	}
	if err != nil {
		l.floor = floor
		return nil, err
	}
	for _, g := range rel.states {
		st := g.mu.groupState
		st.home = l.active
		g.setState(st, false, &l.cache)
	}
	for i := range rel.entries {
		rel.entries[i].settle(l.active, &l.cache)
	}
	l.forgetSteps()
	return nil, nil
}

// settle shows the entry in its new place. It leaves the cache, whose queue knows the old one.
func (e *movedEntry) settle(seg *segment, c *cache) {
	e.g.mu.Lock()
	defer e.g.mu.Unlock()
	s := &e.g.mu.slots[e.index-e.g.mu.trunc-1]
	s.seg.drop(s.bytes())
	c.forget(s)
	s.seg, s.off = seg, e.to
	s.size |= movedBit
	seg.hold(s.bytes())
}

// free takes the segments below floor, which is durable, out of the log.
func (l *Log) free(floor uint64) (int, error) {
	l.mu.Lock()
	n := 0
	for n < len(l.mu.segments) && l.mu.segments[n].number < floor {
		n++
	}
	l.zombies = append(l.zombies, l.mu.segments[:n]...)
	l.mu.segments = append([]*segment(nil), l.mu.segments[n:]...)
	l.mu.Unlock()
	return n, l.buryZombies()
}

// buryZombies makes spares of the segments that left the log and are not being read any more.
func (l *Log) buryZombies() error {
	if len(l.zombies) == 0 {
		return nil
	}
	rest, freed := l.zombies[:0], []spare.File(nil)
	for _, s := range l.zombies {
		if s.readers.Load() > 0 {
			rest = append(rest, s)
			continue
		}
		sp, err := l.bury(s, len(freed))
		if err != nil {
			return l.fail("free a segment", err)
		}
		if sp.Name != "" {
			freed = append(freed, sp)
		}
	}
	clear(l.zombies[len(rest):])
	l.zombies = rest
	// The old names must be gone for good before the files are used again.
	if err := vfs.SyncDir(l.fs, l.dir); err != nil {
		return l.fail("sync the directory", err)
	}
	for _, sp := range freed {
		l.pool.Put(sp)
	}
	return nil
}

// bury closes a segment and removes it or, if spares are wanted beyond the pending ones, renames it to one.
func (l *Log) bury(s *segment, pending int) (spare.File, error) {
	if err := s.file.Close(); err != nil {
		return spare.File{}, err
	}
	n, _ := l.pool.Count()
	if s.size != l.opts.SegmentSize || n+pending >= sparesKept*l.opts.Spares {
		return spare.File{}, l.fs.Remove(l.path(s.name()))
	}
	sp := spare.File{Name: l.pool.Next(), Size: s.size}
	return sp, l.fs.Rename(l.path(s.name()), l.path(sp.Name))
}
