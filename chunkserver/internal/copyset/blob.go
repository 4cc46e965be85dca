package copyset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const blobVersion = 1

// errBlob means that a state does not parse. The checkpoint's own checksum was good, so it was written wrongly.
var errBlob = errors.New("copyset: state does not parse")

// Marshal returns the state as checkpoints and images carry it: the same bytes for the same state. v is an unsigned
// varint; lists are preceded by their length and sorted by their first field.
//
//	version:1 (1)
//	index:v term:v
//	configuration version:v  voters[v] learners[v] outgoing[v] learners next[v]  auto leave:1
//	peers[ peer:v chunkserver:v ]
//	volumes[ volume:v deleted:1 access:v
//	         initiators[ initiator:v epoch:v generation:v low water:v
//	                     outcomes[ distance to the seq before:v code:1 (unless OK: epoch:v generation:v access:v offset:v) ]
//	                     swaps[ seq:v volume:v chunk:v offset:v digest:16 ] ] ]
//	CRC32C:4, little endian, of all bytes before it
func (s *State) Marshal() []byte {
	b := encoder{}
	b.byte(blobVersion)
	b.u(s.index, s.term)
	s.members.marshal(&b)
	b.u(uint64(len(s.volumes)))
	for _, id := range slices.Sorted(maps.Keys(s.volumes)) {
		v := s.volumes[id]
		b.u(uint64(id))
		b.bool(v.deleted)
		b.u(uint64(v.access), uint64(len(v.initiators)))
		for _, ini := range slices.Sorted(maps.Keys(v.initiators)) {
			b.u(uint64(ini))
			v.initiators[ini].marshal(&b)
		}
	}
	return binary.LittleEndian.AppendUint32(b.b, layout.CRC(b.b))
}

func (m *Members) marshal(b *encoder) {
	b.u(m.Version)
	for _, ids := range [][]uint64{m.Conf.GetVoters(), m.Conf.GetLearners(), m.Conf.GetVotersOutgoing(), m.Conf.GetLearnersNext()} {
		ids = slices.Sorted(slices.Values(ids))
		b.u(uint64(len(ids)))
		b.u(ids...)
	}
	b.bool(m.Conf.GetAutoLeave())
	b.u(uint64(len(m.Chunkservers)))
	for _, p := range slices.Sorted(maps.Keys(m.Chunkservers)) {
		b.u(uint64(p), uint64(m.Chunkservers[p]))
	}
}

func (ini *initiator) marshal(b *encoder) {
	b.u(uint64(ini.fence.Epoch), uint64(ini.fence.Generation), uint64(ini.win.low))
	n, last := uint64(0), ini.win.low
	ini.win.each(func(layout.Seq, Outcome) { n++ })
	b.u(n)
	ini.win.each(func(seq layout.Seq, o Outcome) {
		b.u(uint64(seq - last))
		last = seq
		b.byte(byte(o.Code))
		if o.Code != OK {
			b.u(uint64(o.Fence.Epoch), uint64(o.Fence.Generation), uint64(o.Access), uint64(o.Offset))
		}
	})
	b.u(uint64(len(ini.swaps)))
	for _, s := range ini.swaps {
		b.u(uint64(s.seq), uint64(s.chunk.Volume), uint64(s.chunk.Index), uint64(s.offset))
		b.b = append(b.b, s.digest[:]...)
	}
}

// Unmarshal parses what Marshal returned; it keeps nothing of b. ErrVersion when a newer release wrote it.
func Unmarshal(b []byte) (*State, error) {
	if len(b) > 0 && b[0] != blobVersion {
		return nil, fmt.Errorf("%w: state %d", ErrVersion, b[0])
	}
	if len(b) < 5 || layout.CRC(b[:len(b)-4]) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, fmt.Errorf("%w: checksum", errBlob)
	}
	d := decoder{b: b[1 : len(b)-4]}
	s := New(nil, d.u(), d.u())
	s.members = d.members()
	for range d.count(4) {
		id := layout.VolumeID(d.u())
		v := s.volume(id)
		v.deleted = d.bool()
		v.access = layout.AccessGeneration(d.u())
		for range d.count(6) {
			ini := layout.InitiatorID(d.u())
			v.initiators[ini] = d.initiator()
			s.pairs++
		}
	}
	if d.bad || len(d.b) != 0 {
		return nil, errBlob
	}
	return s, nil
}

func (d *decoder) members() *Members {
	m := &Members{Version: d.u(), Conf: &raftpb.ConfState{}, Chunkservers: map[layout.PeerID]layout.ChunkserverID{}}
	for _, ids := range []*[]uint64{&m.Conf.Voters, &m.Conf.Learners, &m.Conf.VotersOutgoing, &m.Conf.LearnersNext} {
		for range d.count(1) {
			*ids = append(*ids, d.u())
		}
	}
	m.Conf.AutoLeave = new(d.bool())
	for range d.count(2) {
		p := layout.PeerID(d.u())
		m.Chunkservers[p] = layout.ChunkserverID(d.u())
	}
	return m
}

func (d *decoder) initiator() *initiator {
	ini := &initiator{fence: layout.Fence{Epoch: layout.Epoch(d.u()), Generation: layout.Generation(d.u())}}
	ini.win.low = layout.Seq(d.u())
	seq := ini.win.low
	for range d.count(2) {
		seq += layout.Seq(d.u())
		o := Outcome{Code: Code(d.byte())}
		if o.Code != OK {
			o.Fence = layout.Fence{Epoch: layout.Epoch(d.u()), Generation: layout.Generation(d.u())}
			o.Access, o.Offset = layout.AccessGeneration(d.u()), uint32(d.u())
		}
		if !ini.win.inside(seq) {
			d.bad = true
			return ini
		}
		ini.win.store(seq, o)
	}
	for range d.count(20) {
		s := swap{seq: layout.Seq(d.u())}
		s.chunk = layout.ChunkID{Volume: layout.VolumeID(d.u()), Index: uint32(d.u())}
		s.offset = uint32(d.u())
		copy(s.digest[:], d.bytes(len(s.digest)))
		ini.swaps = append(ini.swaps, s)
	}
	return ini
}

type encoder struct{ b []byte }

func (e *encoder) byte(v byte) { e.b = append(e.b, v) }

func (e *encoder) bool(v bool) {
	if v {
		e.byte(1)
		return
	}
	e.byte(0)
}

func (e *encoder) u(vs ...uint64) {
	for _, v := range vs {
		e.b = binary.AppendUvarint(e.b, v)
	}
}

// decoder reads from b until it is bad; then everything is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) u() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || d.bad {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	p := d.bytes(1)
	if p == nil {
		return 0
	}
	return p[0]
}

func (d *decoder) bool() bool { return d.byte() == 1 }

func (d *decoder) bytes(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad, d.b = true, nil
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

// count reads the length of a list whose elements take at least size bytes each.
func (d *decoder) count(size uint64) uint64 {
	n := d.u()
	if n > uint64(len(d.b))/size {
		d.bad, d.b = true, nil
		return 0
	}
	return n
}
