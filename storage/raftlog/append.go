package raftlog

import (
	"fmt"
	"hash/crc32"
	"math"

	"go.etcd.io/raft/v3/raftpb"
)

// bufferKept is the largest write buffer that is kept for the next Append, in bytes.
const bufferKept = 8 << 20

// step is one Update as the log will write it.
type step struct {
	g *Group
	// state is the group's state behind the step.
	state groupState
	// entries are appended.
	entries []*raftpb.Entry
	// refs has the place of the tail of each entry that was sideloaded; it is nil when none was.
	refs []*sideRef
	// The records that are written besides the entries, in the order of the fields but with the entries before
	// the last one.
	remove, reset, save bool
}

// stage is what a group will be once the steps planned so far are done.
type stage struct {
	round   uint64 // Log.round of the Append that it belongs to
	state   groupState
	last    uint64
	removed bool
	// intact is the last index whose entry no step of this Append replaces.
	intact uint64
}

// plan is the sum of the steps.
type plan struct {
	size    int // of the batch in bytes
	sync    bool
	reserve bool // it has no entries and may use the last spare
	entries uint64
}

// Append writes all updates as one batch: one write for each MiB, and one sync. When it returns nil, and any of the updates
// needed it (see Update.MustSync), all of them are durable, and so is all that was written before; after a crash a batch that
// was not answered is there as a whole or not at all. *UpdateError and *NoSpaceError mean that nothing happened and the log
// still works; ErrClosed that it is closed; any other error is a *FailedError.
func (l *Log) Append(updates []Update) error {
	l.w.Lock()
	defer l.w.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	defer l.forgetSteps()
	p, err := l.plan(updates)
	if err != nil {
		return err
	}
	if len(l.steps) == 0 {
		if !p.sync {
			return nil
		}
		if err := l.sync(); err != nil {
			return err
		}
		l.releaseTails()
		return nil
	}
	if err := l.sideload(&p); err != nil {
		return err
	}
	if err := l.room(int64(p.size), p.reserve); err != nil {
		l.unload()
		return err
	}
	l.begin()
	for i := range l.steps {
		l.encode(&l.steps[i])
	}
	first := l.off + batchHeader
	if err := l.write(); err != nil {
		return err
	}
	if p.sync {
		if err := l.sync(); err != nil {
			return err
		}
	}
	l.written.Add(p.entries)
	l.publish(uint32(first))
	l.releaseTails()
	return nil
}

// forgetSteps drops what the steps point to and a buffer that is too large to keep.
func (l *Log) forgetSteps() {
	clear(l.steps)
	l.steps = l.steps[:0]
	clear(l.fresh)
	if cap(l.buf) > bufferKept {
		l.buf = nil
	}
}

// plan turns the updates into steps. It changes nothing that others see.
func (l *Log) plan(updates []Update) (plan, error) {
	l.round++
	p := plan{size: batchHeader, reserve: true}
	for i := range updates {
		if err := l.planOne(&updates[i], &p); err != nil {
			return p, err
		}
		if p.size > MaxBatchBytes {
			return p, refuse(&updates[i], "the Append is larger than %d bytes", MaxBatchBytes)
		}
	}
	return p, nil
}

func refuse(u *Update, format string, args ...any) error {
	return &UpdateError{Copyset: u.Copyset, Reason: fmt.Sprintf(format, args...)}
}

func (l *Log) planOne(u *Update, p *plan) error {
	if u.Copyset == 0 {
		return refuse(u, "copyset 0")
	}
	p.sync = p.sync || u.MustSync
	g, isNew := l.staged(u)
	if u.Remove {
		return l.planRemove(g, isNew, u, p)
	}
	st := &g.stage
	if st.removed {
		return refuse(u, "the same Append removes the copyset")
	}
	if err := checkEntries(u, st); err != nil {
		return err
	}
	s := step{g: g, entries: u.Entries, reset: u.Reset != nil}
	if s.reset {
		st.state.trunc, st.state.truncTerm = u.Reset.Index, u.Reset.Term
		st.last, st.intact = u.Reset.Index, u.Reset.Index
	}
	if n := len(u.Entries); n > 0 {
		st.intact = min(st.intact, u.Entries[0].GetIndex()-1)
		st.last = u.Entries[n-1].GetIndex()
	}
	if hs := u.HardState; hs != nil {
		next := hardState{term: hs.GetTerm(), vote: hs.GetVote(), commit: hs.GetCommit()}
		old := st.state.hs
		p.sync = p.sync || next.term != old.term || next.vote != old.vote
		s.save = next != old && !s.reset // a reset record holds it too
		st.state.hs = next
	}
	if u.TruncateTo > st.state.trunc {
		if u.TruncateTo > st.intact {
			return refuse(u, "truncation at %d, but no earlier Append wrote that entry", u.TruncateTo)
		}
		st.state.truncTerm, _ = g.Term(u.TruncateTo)
		st.state.trunc = u.TruncateTo
		s.save = true
	}
	s.save = s.save || isNew && !s.reset
	s.state = st.state
	l.addStep(s, p)
	p.sync = p.sync || s.reset || isNew || len(s.entries) > 0
	return nil
}

// staged returns the group of an update, which it makes if there is none, with a stage of this Append.
func (l *Log) staged(u *Update) (g *Group, isNew bool) {
	g, ok := l.Group(u.Copyset)
	if !ok {
		if g, ok = l.fresh[u.Copyset]; !ok {
			g = &Group{id: u.Copyset, log: l}
			l.fresh[u.Copyset] = g
			isNew = true
		}
	}
	if g.stage.round != l.round {
		g.mu.RLock()
		g.stage = stage{round: l.round, state: g.mu.groupState, last: g.lastLocked(), intact: g.lastLocked()}
		g.mu.RUnlock()
	}
	return g, isNew
}

func (l *Log) planRemove(g *Group, isNew bool, u *Update, p *plan) error {
	if len(u.Entries) > 0 || u.HardState != nil || u.Reset != nil || u.TruncateTo != 0 {
		return refuse(u, "a removal with other changes")
	}
	if isNew {
		delete(l.fresh, u.Copyset)
		return nil
	}
	if g.stage.removed {
		return nil
	}
	g.stage.removed = true
	p.sync = true
	l.addStep(step{g: g, remove: true}, p)
	return nil
}

// checkEntries checks the entries of an update against the log that they extend.
func checkEntries(u *Update, st *stage) error {
	if len(u.Entries) == 0 {
		return nil
	}
	trunc, last := st.state.trunc, st.last
	if u.Reset != nil {
		trunc, last = u.Reset.Index, u.Reset.Index
	}
	first, term := u.Entries[0].GetIndex(), u.Entries[0].GetTerm()
	if first <= trunc || first > last+1 {
		return refuse(u, "entries from %d on, the log has (%d, %d]", first, trunc, last)
	}
	for i, e := range u.Entries {
		switch {
		case e.GetIndex() != first+uint64(i):
			return refuse(u, "entry %d where %d is due", e.GetIndex(), first+uint64(i))
		case e.GetTerm() < term:
			return refuse(u, "entry %d has term %d after term %d", e.GetIndex(), e.GetTerm(), term)
		case len(e.GetData()) > MaxEntryBytes:
			return refuse(u, "entry %d has %d bytes, the limit is %d", e.GetIndex(), len(e.GetData()), MaxEntryBytes)
		case e.GetType() < 0 || e.GetType() > math.MaxUint8:
			return refuse(u, "entry %d has type %d", e.GetIndex(), e.GetType())
		}
		term = e.GetTerm()
	}
	return nil
}

func (l *Log) addStep(s step, p *plan) {
	for _, e := range s.entries {
		p.size += recordSize(len(e.GetData()))
	}
	if s.remove {
		p.size += recordSize(0)
	}
	if s.reset {
		p.size += recordSize(statePayload)
	}
	if s.save {
		p.size += recordSize(statePayload)
	}
	if len(s.entries) > 0 {
		p.reserve = false
		p.entries += uint64(len(s.entries))
	}
	if s.remove || s.reset || s.save || len(s.entries) > 0 {
		l.steps = append(l.steps, s)
	}
}

// room makes sure that a batch of size bytes fits in the active segment.
func (l *Log) room(size int64, reserve bool) error {
	if l.off+size <= l.active.size {
		return nil
	}
	if err := l.sync(); err != nil {
		return err
	}
	return l.startSegment(size, reserve)
}

// begin starts a batch in the buffer.
func (l *Log) begin() {
	l.nextSeq = max(l.nextSeq, l.seq+1)
	var header [batchHeader]byte
	l.buf = append(l.buf[:0], header[:]...)
}

func (l *Log) record(typ recordType, g *Group, index, term uint64) record {
	return record{typ: typ, batch: uint32(l.nextSeq), copyset: g.id, index: index, term: term}
}

// encode appends the records of a step to the batch.
func (l *Log) encode(s *step) {
	seed := l.active.seed
	if s.remove {
		r := l.record(recordRemove, s.g, 0, 0)
		l.buf = r.append(l.buf, nil, seed)
		return
	}
	hs := s.state.hs.payload()
	if s.reset {
		// The reset point is the truncation point that the step ends with: TruncateTo never goes beyond it.
		r := l.record(recordReset, s.g, s.state.trunc, s.state.truncTerm)
		l.buf = r.append(l.buf, hs[:], seed)
	}
	for i, e := range s.entries {
		r := l.record(recordEntry, s.g, e.GetIndex(), e.GetTerm())
		r.entry = uint8(e.GetType())
		if s.refs != nil && s.refs[i] != nil {
			r.typ = recordSide
			l.scratch = s.refs[i].appendTo(l.scratch[:0], e.GetData())
			l.buf = r.append(l.buf, l.scratch, seed)
			continue
		}
		l.buf = r.append(l.buf, e.GetData(), seed)
	}
	if s.save {
		r := l.record(recordState, s.g, s.state.trunc, s.state.truncTerm)
		l.buf = r.append(l.buf, hs[:], seed)
	}
}

// write completes the batch in the buffer and writes it.
func (l *Log) write() error {
	records, digest := digestOf(l.buf)
	h := batch{
		length: uint32(len(l.buf)), records: records, seq: l.nextSeq, prev: l.seq, durable: l.durable,
		floor: l.floor, digest: digest, offset: uint64(l.off),
	}
	h.put(l.buf, l.active.seed)
	if err := l.out.Write(l.buf); err != nil {
		return l.fail("write "+l.active.name(), err)
	}
	l.off += int64(len(l.buf))
	l.seq = l.nextSeq
	l.sealed = false
	return nil
}

// digestOf returns the number of records in a whole batch and the checksum of their headers.
func digestOf(b []byte) (records, digest uint32) {
	for at := batchHeader; at < len(b); {
		digest = crc32.Update(digest, castagnoli, b[at:at+recordHeader])
		at += recordSize(int(le.Uint32(b[at+4:])))
		records++
	}
	return records, digest
}

// sync makes all batches durable. It is never tried again after an error.
func (l *Log) sync() error {
	if l.durable == l.seq {
		return nil
	}
	if err := l.active.file.Sync(); err != nil {
		return l.fail("sync "+l.active.name(), err)
	}
	l.durable = l.seq
	l.syncs.Add(1)
	return nil
}

// publish lets the groups show the steps, whose records start at off in the active segment.
func (l *Log) publish(off uint32) {
	seg := l.active
	for i := range l.steps {
		s := &l.steps[i]
		if s.remove {
			off += uint32(recordSize(0))
			s.g.remove(&l.cache)
			l.mu.Lock()
			delete(l.mu.groups, s.g.id)
			l.mu.Unlock()
			continue
		}
		s.state.home = seg
		if s.reset {
			off += uint32(recordSize(statePayload))
			s.g.setState(s.state, true, &l.cache)
		}
		if len(s.entries) > 0 {
			off = s.g.extend(s, seg, off, &l.cache)
		}
		if s.save {
			off += uint32(recordSize(statePayload))
			s.g.setState(s.state, false, &l.cache)
		}
	}
	if len(l.fresh) > 0 {
		l.mu.Lock()
		for id, g := range l.fresh {
			if !g.mu.removed {
				l.mu.groups[id] = g
			}
		}
		l.mu.Unlock()
	}
	l.cache.evict()
}
