package raftlog

import (
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Extent is a run of blocks of the disk's data file.
type Extent struct {
	// Start is the number of the first block, Blocks how many there are.
	Start  uint64
	Blocks uint32
}

// Sidecar keeps the tails of large entries, their payloads, where applying them wants them anyway, so that they are
// written once. Store, Sync and Release are called by the log writer, Load by any goroutine.
type Sidecar interface {
	// Tail returns how many bytes at the end of the entry's data are to be kept by the sidecar, 0 for none, and their CRC32C:
	// an entry may bring checksums of which that follows, so that nobody has to go over the bytes again.
	Tail(e *raftpb.Entry) (n int, crc uint32)
	// Store writes a tail; it need not be durable yet. After an error the entry goes into the log as a whole.
	Store(tail []byte) ([]Extent, error)
	// Sync makes all that was stored durable. After an error the log fails.
	Sync() error
	// Load reads a tail back.
	Load(extents []Extent, tail []byte) error
	// Release tells that no entry of the log needs the extents any more, durably.
	Release(extents []Extent)
}

const (
	sideHeader = 12
	sideExtent = 12
	// sideExtentsMax bounds the extents of one entry.
	sideExtentsMax = MaxEntryBytes / layout.BlockSize
)

// sideRef says where the tail of an entry is.
type sideRef struct {
	// size is the length of the whole data, tail that of the tail; crc is the tail's checksum.
	size, tail int
	crc        uint32
	extents    []Extent
}

// stored returns the length of the record's payload.
func (r *sideRef) stored() int { return sideHeader + sideExtent*len(r.extents) + r.size - r.tail }

// appendTo appends the record's payload.
func (r *sideRef) appendTo(b, data []byte) []byte {
	b = le.AppendUint32(b, uint32(r.tail))
	b = le.AppendUint32(b, r.crc)
	b = le.AppendUint32(b, uint32(len(r.extents)))
	for _, x := range r.extents {
		b = le.AppendUint64(b, x.Start)
		b = le.AppendUint32(b, x.Blocks)
	}
	return append(b, data[:r.size-r.tail]...)
}

// parseSide decodes the payload of a sideloaded entry's record. head lies in p.
func parseSide(p []byte) (r *sideRef, head []byte, ok bool) {
	if len(p) < sideHeader {
		return nil, nil, false
	}
	tail, n := le.Uint32(p), le.Uint32(p[8:])
	if tail == 0 || tail > MaxEntryBytes || n == 0 || n > sideExtentsMax || len(p) < sideHeader+sideExtent*int(n) {
		return nil, nil, false
	}
	r = &sideRef{tail: int(tail), crc: le.Uint32(p[4:]), extents: make([]Extent, n)}
	p = p[sideHeader:]
	for i := range r.extents {
		r.extents[i] = Extent{Start: le.Uint64(p), Blocks: le.Uint32(p[8:])}
		p = p[sideExtent:]
	}
	r.size = len(p) + int(tail)
	return r, p, r.size <= MaxEntryBytes
}

// Attach gives the log a sidecar, once, before the first Append. hold is called for the extents of each retained entry,
// which must be kept from all other use until Release. A log with such entries must not be used without.
func (l *Log) Attach(s Sidecar, hold func([]Extent) error) error {
	l.w.Lock()
	defer l.w.Unlock()
	for _, g := range l.groups() {
		g.mu.RLock()
		var refs []*sideRef
		for i := range g.mu.slots {
			if r := g.mu.slots[i].side; r != nil {
				refs = append(refs, r)
			}
		}
		g.mu.RUnlock()
		for _, r := range refs {
			if err := hold(r.extents); err != nil {
				return fmt.Errorf("raftlog: copyset %d: %w", g.id, err)
			}
		}
	}
	l.side = s
	l.sideLoad.Store(&s)
	return nil
}

// Extents returns where the tail of an entry is, nil when it is in the log. The entry must stay in the log while they
// are used.
func (g *Group) Extents(index, term uint64) []Extent {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.mu.removed || index <= g.mu.trunc || index > g.lastLocked() {
		return nil
	}
	if s := &g.mu.slots[index-g.mu.trunc-1]; s.side != nil && s.term == term {
		return s.side.extents
	}
	return nil
}

// sideload stores the tails of the entries of all steps, durably, before any record points to them.
func (l *Log) sideload(p *plan) error {
	if l.side == nil {
		return nil
	}
	stored := false
	for i := range l.steps {
		s := &l.steps[i]
		for k, e := range s.entries {
			n, crc := l.side.Tail(e)
			if n <= 0 {
				continue
			}
			data := e.GetData()
			tail := data[len(data)-n:]
			extents, err := l.side.Store(tail)
			if err != nil {
				continue
			}
			if s.refs == nil {
				s.refs = make([]*sideRef, len(s.entries))
			}
			r := &sideRef{size: len(data), tail: n, crc: crc, extents: extents}
			s.refs[k] = r
			p.size += recordSize(r.stored()) - recordSize(len(data))
			stored = true
		}
	}
	if !stored {
		return nil
	}
	if err := l.side.Sync(); err != nil {
		return l.fail("sync sideloaded entries", err)
	}
	return nil
}

// unload gives back what sideload stored, when no record was written.
func (l *Log) unload() {
	for i := range l.steps {
		for _, r := range l.steps[i].refs {
			if r != nil {
				l.side.Release(r.extents)
			}
		}
	}
}

// droppedTails are the extents of entries that batch seq, or one before, dropped.
type droppedTails struct {
	seq     uint64
	extents []Extent
}

// releaseTails gives the extents back of entries whose drop is durable.
func (l *Log) releaseTails() {
	if len(l.cache.dropped) > 0 {
		l.tails = append(l.tails, droppedTails{seq: l.seq, extents: l.cache.dropped})
		l.cache.dropped = nil
	}
	for len(l.tails) > 0 && l.tails[0].seq <= l.durable {
		if l.side != nil {
			l.side.Release(l.tails[0].extents)
		}
		l.tails = l.tails[1:]
	}
}

// loadTail completes the data of a sideloaded entry of which p is the record's payload.
func (l *Log) loadTail(g *Group, index uint64, s *slot, p []byte) ([]byte, error) {
	corrupt := func(reason string) error {
		return &CorruptError{Segment: s.seg.name(), Offset: int64(s.off), Copyset: g.id, Reason: reason}
	}
	side := l.sideLoad.Load()
	r, head, ok := parseSide(p)
	if !ok || side == nil {
		return nil, corrupt("a sideloaded entry does not read back as written")
	}
	data := make([]byte, r.size)
	copy(data, head)
	err := (*side).Load(r.extents, data[len(head):])
	if err == nil && crc32.Checksum(data[len(head):], castagnoli) != r.crc {
		err = corrupt("the payload of a sideloaded entry is damaged")
	}
	// While the entry is in the log its blocks are not used for anything else.
	if !g.has(index, s) {
		return nil, raft.ErrCompacted
	}
	return data, err
}

// has tells whether the entry still is where s says, or was only written again.
func (g *Group) has(index uint64, s *slot) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return !g.mu.removed && index > g.mu.trunc && index <= g.lastLocked() && g.mu.slots[index-g.mu.trunc-1].side == s.side
}
