package extent

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The kinds of keys; see the package comment.
const (
	KeyStore   = 0x01
	KeyCopyset = 0x02
	KeyLeaf    = 0x03
	KeyVolume  = 0x04
)

const (
	// CopysetKeyLen is the length of a copyset's key, in bytes.
	CopysetKeyLen = 1 + 8
	// LeafKeyLen is the length of a leaf's key, in bytes.
	LeafKeyLen    = 1 + 8 + 8 + 4 + 4 + 8
	recordVersion = 1
	recordHeader  = 2 + 8 + 8 + 8

	// StoreRecordVersion is the format of the store record, its first byte.
	StoreRecordVersion = 1
	// StoreRecordLen is the length of the store record, in bytes.
	StoreRecordLen = 1 + 16
)

// StoreKey returns the key of the store record.
func StoreKey() []byte { return []byte{KeyStore} }

// AppendCopysetKey appends the key of a copyset record.
func AppendCopysetKey(b []byte, id layout.CopysetID) []byte {
	return binary.BigEndian.AppendUint64(append(b, KeyCopyset), uint64(id))
}

// AppendIncarnationKey appends the prefix of the keys of a kind (KeyLeaf, KeyVolume) of an incarnation; that of the next one is
// the end of their range.
func AppendIncarnationKey(b []byte, kind byte, incarnation uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, kind), incarnation)
}

// AppendVolumeKey appends the prefix of the leaves of a volume; that of the next volume is the end of their range.
func AppendVolumeKey(b []byte, incarnation uint64, v layout.VolumeID) []byte {
	return binary.BigEndian.AppendUint64(AppendIncarnationKey(b, KeyLeaf, incarnation), uint64(v))
}

// AppendVersionsKey appends the key of a volume's versions.
func AppendVersionsKey(b []byte, incarnation uint64, v layout.VolumeID) []byte {
	return binary.BigEndian.AppendUint64(AppendIncarnationKey(b, KeyVolume, incarnation), uint64(v))
}

// ParseVersionsKey takes the key of a volume's versions apart.
func ParseVersionsKey(k []byte) (incarnation uint64, v layout.VolumeID, err error) {
	if len(k) != 1+8+8 || k[0] != KeyVolume {
		return 0, 0, &CorruptError{What: fmt.Sprintf("index: key %x", k)}
	}
	return binary.BigEndian.Uint64(k[1:]), layout.VolumeID(binary.BigEndian.Uint64(k[9:])), nil
}

// KeyIncarnation returns the incarnation of a key of the kinds KeyLeaf and KeyVolume.
func KeyIncarnation(k []byte) (uint64, error) {
	if len(k) < 1+8 {
		return 0, &CorruptError{What: fmt.Sprintf("index: key %x", k)}
	}
	return binary.BigEndian.Uint64(k[1:]), nil
}

// VolumeRange returns the range of the keys of a volume's leaves.
func VolumeRange(incarnation uint64, v layout.VolumeID) (from, to []byte) {
	if v+1 == 0 {
		return AppendVolumeKey(nil, incarnation, v), AppendIncarnationKey(nil, KeyLeaf, incarnation+1)
	}
	return AppendVolumeKey(nil, incarnation, v), AppendVolumeKey(nil, incarnation, v+1)
}

// AppendLeafKey appends the key of a leaf.
func AppendLeafKey(b []byte, incarnation uint64, id LeafID) []byte {
	b = AppendVolumeKey(b, incarnation, id.Chunk.Volume)
	b = binary.BigEndian.AppendUint32(b, id.Chunk.Index)
	b = binary.BigEndian.AppendUint32(b, id.Index)
	return binary.BigEndian.AppendUint64(b, id.Version-1) // so that the head, 0, comes last
}

// ParseLeafKey takes a leaf's key apart.
func ParseLeafKey(k []byte) (incarnation uint64, id LeafID, err error) {
	if len(k) != LeafKeyLen || k[0] != KeyLeaf {
		return 0, LeafID{}, &CorruptError{What: fmt.Sprintf("index: key %x", k)}
	}
	id.Chunk.Volume = layout.VolumeID(binary.BigEndian.Uint64(k[9:]))
	id.Chunk.Index = binary.BigEndian.Uint32(k[17:])
	id.Index = binary.BigEndian.Uint32(k[21:])
	id.Version = binary.BigEndian.Uint64(k[25:]) + 1
	return binary.BigEndian.Uint64(k[1:]), id, nil
}

// Record is the durable state of a copyset.
type Record struct {
	Incarnation, Index, Term uint64
	State                    []byte
}

// AppendTo appends the record's encoding to b.
func (r *Record) AppendTo(b []byte) []byte {
	b = append(b, recordVersion, 0)
	b = binary.LittleEndian.AppendUint64(b, r.Incarnation)
	b = binary.LittleEndian.AppendUint64(b, r.Index)
	b = binary.LittleEndian.AppendUint64(b, r.Term)
	return append(b, r.State...)
}

// ParseRecord decodes a copyset record; its state is a copy.
func ParseRecord(b []byte) (Record, error) {
	if len(b) < recordHeader {
		return Record{}, &CorruptError{What: "copyset record: short"}
	}
	if b[0] != recordVersion || b[1] != 0 {
		return Record{}, &VersionError{What: "copyset record", Have: uint32(b[0]) | uint32(b[1])<<8, Knows: recordVersion}
	}
	r := Record{
		Incarnation: binary.LittleEndian.Uint64(b[2:]),
		Index:       binary.LittleEndian.Uint64(b[10:]),
		Term:        binary.LittleEndian.Uint64(b[18:]),
	}
	if len(b) > recordHeader {
		r.State = append([]byte(nil), b[recordHeader:]...)
	}
	return r, nil
}

// ParseCopysetKey takes the key of a copyset record apart; its length was checked.
func ParseCopysetKey(k []byte) layout.CopysetID {
	return layout.CopysetID(binary.BigEndian.Uint64(k[1:]))
}
