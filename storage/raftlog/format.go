package raftlog

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// formatVersion is the version of the segments that this release writes, and the highest that it reads.
	formatVersion = 2

	headerBlock   = 4096 // of a segment; the first batch follows
	headerBytes   = 64
	batchHeader   = 64
	recordHeader  = 40
	statePayload  = 24
	recordAlign   = 8
	segmentMagic  = "ashlrlog"
	batchMagic    = 0x7461_6c61 // "alat"
	maxGroupHoles = 1 << 24     // entries absent between two of a group during recovery
)

// recordType is the type of a record.
type recordType uint8

const (
	recordEntry  recordType = 1
	recordState  recordType = 2
	recordReset  recordType = 3
	recordRemove recordType = 4
	recordSide   recordType = 5
)

// flagMoved marks an entry that Compact wrote again.
const flagMoved = 1

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// segmentHeader is the header of a segment.
type segmentHeader struct {
	version  uint32
	identity [16]byte
	number   uint64
	prev     uint64
	floor    uint64
	size     uint64
}

// appendTo appends the header, padded to headerBlock.
func (h *segmentHeader) appendTo(b []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, headerBlock)...)
	p := b[at : at+headerBytes]
	copy(p, segmentMagic)
	le.PutUint32(p[8:], h.version)
	copy(p[16:], h.identity[:])
	le.PutUint64(p[32:], h.number)
	le.PutUint64(p[40:], h.prev)
	le.PutUint64(p[48:], h.floor)
	le.PutUint64(p[56:], h.size)
	le.PutUint32(p[12:], headerCRC(p))
	return b
}

func headerCRC(p []byte) uint32 {
	return crc32.Update(crc32.Checksum(p[:12], castagnoli), castagnoli, p[16:headerBytes])
}

// parseHeader reads a segment's header; ok tells that its magic and checksum are good.
func parseHeader(p []byte) (h segmentHeader, ok bool) {
	if len(p) < headerBytes || string(p[:8]) != segmentMagic || le.Uint32(p[12:]) != headerCRC(p) {
		return h, false
	}
	h.version = le.Uint32(p[8:])
	copy(h.identity[:], p[16:])
	h.number, h.prev, h.floor, h.size = le.Uint64(p[32:]), le.Uint64(p[40:]), le.Uint64(p[48:]), le.Uint64(p[56:])
	return h, true
}

// seedOf returns the seed of the checksums in one segment of one log.
func seedOf(identity [16]byte, number uint64) uint32 {
	var b [24]byte
	copy(b[:], identity[:])
	le.PutUint64(b[16:], number)
	return crc32.Checksum(b[:], castagnoli)
}

// batch is the header of a batch.
type batch struct {
	length  uint32
	records uint32
	seq     uint64
	prev    uint64
	durable uint64
	floor   uint64
	digest  uint32
	flags   uint32
	offset  uint64
}

// put writes the header into p[:batchHeader].
func (h *batch) put(p []byte, seed uint32) {
	le.PutUint32(p[0:], batchMagic)
	le.PutUint32(p[8:], h.length)
	le.PutUint32(p[12:], h.records)
	le.PutUint64(p[16:], h.seq)
	le.PutUint64(p[24:], h.prev)
	le.PutUint64(p[32:], h.durable)
	le.PutUint64(p[40:], h.floor)
	le.PutUint32(p[48:], h.digest)
	le.PutUint32(p[52:], h.flags)
	le.PutUint64(p[56:], h.offset)
	le.PutUint32(p[4:], crc32.Update(seed, castagnoli, p[8:batchHeader]))
}

// parseBatch reads the header of the batch at offset pos of the segment seg; ok tells that it is one, of this
// segment and this place.
func parseBatch(seg []byte, pos int, seed uint32) (h batch, ok bool) {
	if len(seg)-pos < batchHeader || le.Uint32(seg[pos:]) != batchMagic {
		return h, false
	}
	p := seg[pos : pos+batchHeader]
	if le.Uint32(p[4:]) != crc32.Update(seed, castagnoli, p[8:]) {
		return h, false
	}
	h = batch{
		length: le.Uint32(p[8:]), records: le.Uint32(p[12:]), seq: le.Uint64(p[16:]), prev: le.Uint64(p[24:]),
		durable: le.Uint64(p[32:]), floor: le.Uint64(p[40:]), digest: le.Uint32(p[48:]), flags: le.Uint32(p[52:]),
		offset: le.Uint64(p[56:]),
	}
	return h, h.offset == uint64(pos)
}

// record is the header of a record.
type record struct {
	length  uint32
	typ     recordType
	entry   uint8 // raftpb.EntryType
	flags   uint16
	batch   uint32
	copyset layout.CopysetID
	index   uint64
	term    uint64
}

// recordSize returns what a record with a payload of n bytes takes.
func recordSize(n int) int { return (recordHeader + n + recordAlign - 1) &^ (recordAlign - 1) }

// append appends the record. It copies the payload.
func (r *record) append(b []byte, payload []byte, seed uint32) []byte {
	at := len(b)
	var h [recordHeader]byte
	le.PutUint32(h[4:], uint32(len(payload)))
	h[8], h[9] = uint8(r.typ), r.entry
	le.PutUint16(h[10:], r.flags)
	le.PutUint32(h[12:], r.batch)
	le.PutUint64(h[16:], uint64(r.copyset))
	le.PutUint64(h[24:], r.index)
	le.PutUint64(h[32:], r.term)
	b = append(append(b, h[:]...), payload...)
	le.PutUint32(b[at:], crc32.Update(seed, castagnoli, b[at+4:]))
	var pad [recordAlign]byte
	return append(b, pad[:at+recordSize(len(payload))-len(b)]...)
}

// parseRecord reads the record at the start of b and returns its payload, which aliases b; ok tells that it is whole
// and its checksum is good.
func parseRecord(b []byte, seed uint32) (r record, payload []byte, ok bool) {
	if len(b) < recordHeader {
		return r, nil, false
	}
	r = headerOf(b)
	if uint64(r.length) > uint64(len(b)-recordHeader) {
		return r, nil, false
	}
	end := recordHeader + int(r.length)
	if le.Uint32(b) != crc32.Update(seed, castagnoli, b[4:end]) {
		return r, nil, false
	}
	return r, b[recordHeader:end:end], true
}

// headerOf reads a record's header without a check.
func headerOf(b []byte) record {
	return record{
		length: le.Uint32(b[4:]), typ: recordType(b[8]), entry: b[9], flags: le.Uint16(b[10:]),
		batch: le.Uint32(b[12:]), copyset: layout.CopysetID(le.Uint64(b[16:])),
		index: le.Uint64(b[24:]), term: le.Uint64(b[32:]),
	}
}

// hardState is raftpb.HardState by value.
type hardState struct{ term, vote, commit uint64 }

func (h hardState) payload() (p [statePayload]byte) {
	le.PutUint64(p[0:], h.term)
	le.PutUint64(p[8:], h.vote)
	le.PutUint64(p[16:], h.commit)
	return p
}

func parseHardState(p []byte) (h hardState, ok bool) {
	if len(p) != statePayload {
		return h, false
	}
	return hardState{term: le.Uint64(p), vote: le.Uint64(p[8:]), commit: le.Uint64(p[16:])}, true
}
