package raftlog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// recovery reads a log. It changes nothing on the disk.
type recovery struct {
	l      *Log
	groups map[layout.CopysetID]*builder
	buf    []byte // a whole segment
}

// builder collects the log of one copyset while the segments are read, oldest first. Entries whose segment was freed
// are absent until they come again as moved ones.
type builder struct {
	state groupState
	first uint64 // the index of slots[0]
	slots []slot // with seg nil where the entry is absent
}

// run recovers from the segments with these numbers, ascending.
func (r *recovery) run(numbers []uint64) error {
	l := r.l
	last := numbers[len(numbers)-1]
	lastSeg, lastHead, err := r.load(last)
	if err != nil {
		return err
	}
	lastBuf := r.buf
	r.buf = nil
	tail := chain{seg: lastSeg, buf: lastBuf, seq: lastHead.prev, floor: lastHead.floor, off: headerBlock}
	if err := tail.walk(nil); err != nil {
		l.mu.segments = append(l.mu.segments, lastSeg) // for release
		return err
	}
	seen, err := tail.judge()
	if err == nil {
		err = r.older(numbers, tail.floor, lastHead)
	}
	l.mu.segments = append(l.mu.segments, lastSeg)
	if err != nil {
		return err
	}
	again := chain{seg: lastSeg, buf: lastBuf, seq: lastHead.prev, floor: lastHead.floor, off: headerBlock}
	if err := again.walk(r.apply); err != nil {
		return err
	}
	l.active, l.off, l.seq, l.floor, l.sealed = lastSeg, int64(tail.off), tail.seq, tail.floor, tail.sealed
	l.nextSeq = max(seen, tail.seq) + seqJump
	return r.finish()
}

// older reads the segments from floor up to but not including the last, whose header is given.
func (r *recovery) older(numbers []uint64, floor uint64, last segmentHeader) error {
	l := r.l
	numbers = numbers[:len(numbers)-1]
	for len(numbers) > 0 && numbers[0] < floor {
		if err := l.checkObsolete(numbers[0]); err != nil {
			return err
		}
		numbers = numbers[1:]
	}
	var seg *segment
	var head segmentHeader
	var end chain
	for number := floor; number < last.number; number++ {
		if len(numbers) == 0 || numbers[0] != number {
			return &CorruptError{Segment: segmentName(number), Reason: "the segment is missing"}
		}
		numbers = numbers[1:]
		var err error
		if seg, head, err = r.load(number); err != nil {
			return err
		}
		l.mu.segments = append(l.mu.segments, seg)
		if number > floor {
			if err := end.meets(head); err != nil {
				return err
			}
		}
		end = chain{seg: seg, buf: r.buf, seq: head.prev, floor: head.floor, off: headerBlock}
		if err := end.walk(r.apply); err != nil {
			return err
		}
	}
	if seg == nil {
		return nil
	}
	return end.meets(last)
}

// load opens a segment and reads all of it into r.buf.
func (r *recovery) load(number uint64) (*segment, segmentHeader, error) {
	h, f, err := r.l.loadHeader(number)
	if err != nil {
		return nil, h, err
	}
	if uint64(cap(r.buf)) < h.size {
		r.buf = make([]byte, h.size)
	}
	r.buf = r.buf[:h.size]
	if _, err := f.ReadAt(r.buf, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, h, errors.Join(err, f.Close())
	}
	seed := seedOf(h.identity, number)
	return &segment{number: number, size: int64(h.size), seed: seed, file: f}, h, nil
}

// chain is a walk over the batches of one segment.
type chain struct {
	seg   *segment
	buf   []byte // the segment
	off   int    // behind the last good batch
	seq   uint64 // of the last good batch
	floor uint64 // as the last good batch says
	// sealed tells that the last good batch is empty and vouches for all before.
	sealed bool
}

// walk goes over the batches as far as they are good and continue each other, and gives their records to apply. A
// record or batch that only a newer release understands is an error.
func (c *chain) walk(apply func(seg *segment, off uint32, rec record, payload []byte) error) error {
	for {
		h, ok := parseBatch(c.buf, c.off, c.seg.seed)
		if !ok || h.prev != c.seq || h.seq <= c.seq || !c.whole(h) {
			return nil
		}
		if h.flags != 0 {
			return &VersionError{Segment: c.seg.name(), Got: h.flags, What: "batch flags"}
		}
		if apply != nil {
			if err := c.records(h, apply); err != nil {
				return err
			}
		}
		c.off, c.seq, c.floor = c.off+int(h.length), h.seq, h.floor
		c.sealed = h.records == 0 && h.durable == h.prev
	}
}

// whole tells whether all records of the batch at c.off are good and the ones that it was written with.
func (c *chain) whole(h batch) bool {
	if h.length < batchHeader || uint64(h.length) > uint64(len(c.buf)-c.off) {
		return false
	}
	b := c.buf[c.off+batchHeader : c.off+int(h.length)]
	n, digest := uint32(0), uint32(0)
	for len(b) > 0 {
		rec, _, ok := parseRecord(b, c.seg.seed)
		size := recordSize(int(rec.length))
		if !ok || rec.batch != uint32(h.seq) || size > len(b) {
			return false
		}
		digest = crc32.Update(digest, castagnoli, b[:recordHeader])
		b = b[size:]
		n++
	}
	return n == h.records && digest == h.digest
}

func (c *chain) records(h batch, apply func(*segment, uint32, record, []byte) error) error {
	for at, end := c.off+batchHeader, c.off+int(h.length); at < end; {
		length := int(le.Uint32(c.buf[at+4:]))
		rec := headerOf(c.buf[at:])
		if err := apply(c.seg, uint32(at), rec, c.buf[at+recordHeader:at+recordHeader+length]); err != nil {
			return err
		}
		at += recordSize(length)
	}
	return nil
}

// meets checks that the chain ends where the next segment says that it does.
func (c *chain) meets(next segmentHeader) error {
	if c.seq == next.prev {
		return nil
	}
	return &CorruptError{
		Segment: c.seg.name(), Offset: int64(c.off),
		Reason: fmt.Sprintf("batch %d is the last good one, but the next segment follows batch %d", c.seq, next.prev),
	}
}

// judge decides whether what lies behind the last good batch of the last segment is a torn tail: it is not if a batch
// behind it says that more was durable. It returns the highest sequence number met.
func (c *chain) judge() (seen uint64, err error) {
	for at := c.off; at+batchHeader <= len(c.buf); at += recordAlign {
		if le.Uint32(c.buf[at:]) != batchMagic {
			continue
		}
		h, ok := parseBatch(c.buf, at, c.seg.seed)
		if !ok {
			continue
		}
		if h.durable > c.seq {
			return 0, &CorruptError{
				Segment: c.seg.name(), Offset: int64(c.off),
				Reason: fmt.Sprintf("batch %d is the last good one, but offset %d says that %d was durable", c.seq, at, h.durable),
			}
		}
		seen = max(seen, h.seq)
	}
	return seen, nil
}

// apply takes one record over.
func (r *recovery) apply(seg *segment, off uint32, rec record, payload []byte) error {
	corrupt := func(format string, args ...any) error {
		return &CorruptError{
			Segment: seg.name(), Offset: int64(off), Copyset: rec.copyset, Reason: fmt.Sprintf(format, args...),
		}
	}
	if rec.flags&^flagMoved != 0 {
		return &VersionError{Segment: seg.name(), Got: uint32(rec.flags), Max: flagMoved, What: "record flags"}
	}
	b := r.groups[rec.copyset]
	if b == nil && rec.typ != recordRemove {
		b = &builder{}
		r.groups[rec.copyset] = b
	}
	switch rec.typ {
	case recordEntry, recordSide:
		s := slot{term: rec.term, seg: seg, off: off, size: rec.length}
		if rec.typ == recordSide {
			var ok bool
			if s.side, _, ok = parseSide(payload); !ok {
				return corrupt("the record of a sideloaded entry does not parse")
			}
		}
		if rec.flags&flagMoved != 0 {
			s.size |= movedBit
			return b.moved(rec.index, s, corrupt)
		}
		return b.entry(rec.index, s, corrupt)
	case recordState, recordReset:
		hs, ok := parseHardState(payload)
		if !ok {
			return corrupt("a state of %d bytes", len(payload))
		}
		b.setState(groupState{hs: hs, trunc: rec.index, truncTerm: rec.term, home: seg}, rec.typ == recordReset)
		return nil
	case recordRemove:
		delete(r.groups, rec.copyset)
		return nil
	}
	return &VersionError{Segment: seg.name(), Got: uint32(rec.typ), Max: uint32(recordSide), What: "record type"}
}

func (b *builder) setState(st groupState, restart bool) {
	b.state = st
	if restart {
		b.slots = nil
	}
	b.trim()
}

// trim drops the slots up to the truncation point.
func (b *builder) trim() {
	if len(b.slots) == 0 || b.state.trunc < b.first {
		return
	}
	n := min(b.state.trunc-b.first+1, uint64(len(b.slots)))
	b.slots = b.slots[n:]
	b.first += n
}

// entry takes over an entry that replaces all from its index on.
func (b *builder) entry(index uint64, s slot, corrupt func(string, ...any) error) error {
	if index < b.first {
		b.slots = b.slots[:0]
	}
	if err := b.cover(index, corrupt); err != nil {
		return err
	}
	at := index - b.first
	b.slots = b.slots[:at+1]
	b.slots[at] = s
	return nil
}

// moved takes over an entry that was written again: it fills its place and drops nothing.
func (b *builder) moved(index uint64, s slot, corrupt func(string, ...any) error) error {
	if index <= b.state.trunc {
		return corrupt("moved entry %d is below the truncation point %d", index, b.state.trunc)
	}
	if err := b.cover(index, corrupt); err != nil {
		return err
	}
	p := &b.slots[index-b.first]
	if p.seg != nil && p.term != s.term {
		return corrupt("moved entry %d has term %d instead of %d", index, s.term, p.term)
	}
	*p = s
	return nil
}

// cover makes slots at least up to index, those in between absent.
func (b *builder) cover(index uint64, corrupt func(string, ...any) error) error {
	n := uint64(len(b.slots))
	switch {
	case n == 0:
		b.first, b.slots = index, append(b.slots[:0], slot{})
	case index < b.first:
		gap := b.first - index
		if gap > maxGroupHoles {
			return corrupt("entry %d is far below entry %d", index, b.first)
		}
		b.slots = append(make([]slot, gap, gap+n), b.slots...)
		b.first = index
	case index >= b.first+n:
		gap := index - (b.first + n)
		if gap > maxGroupHoles {
			return corrupt("entry %d is far above entry %d", index, b.first+n-1)
		}
		for range gap + 1 {
			b.slots = append(b.slots, slot{})
		}
	}
	return nil
}

// finish checks that every group is complete and hands the groups to the log.
func (r *recovery) finish() error {
	for id, b := range r.groups {
		corrupt := func(reason string) error {
			return &CorruptError{Segment: segmentName(r.l.floor), Copyset: id, Reason: reason}
		}
		if b.state.home == nil {
			return corrupt("the copyset has entries but no state")
		}
		if len(b.slots) > 0 && b.first != b.state.trunc+1 {
			return corrupt(fmt.Sprintf("entry %d does not follow the truncation point %d", b.first, b.state.trunc))
		}
		g := &Group{id: id, log: r.l}
		for i := range b.slots {
			s := &b.slots[i]
			if s.seg == nil {
				return corrupt(fmt.Sprintf("entry %d is absent", b.first+uint64(i)))
			}
			s.seg.hold(s.bytes())
		}
		b.state.home.hold(recordSize(statePayload))
		g.mu.groupState, g.mu.slots = b.state, b.slots
		r.l.mu.groups[id] = g
	}
	return nil
}
