package blockstore

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The kinds of keys; see the package comment.
const (
	keyStore   = 0x01
	keyCopyset = 0x02
	keyLeaf    = 0x03
)

const (
	copysetKeyLen  = 1 + 8
	leafKeyLen     = 1 + 8 + 8 + 4 + 4
	recordVersion  = 1
	recordHeader   = 2 + 8 + 8 + 8
	storeRecordLen = 1 + 16
)

// storeKey returns the key of the store record.
func storeKey() []byte { return []byte{keyStore} }

// appendCopysetKey appends the key of a copyset record.
func appendCopysetKey(b []byte, id layout.CopysetID) []byte {
	return binary.BigEndian.AppendUint64(append(b, keyCopyset), uint64(id))
}

// appendIncarnationKey appends the prefix of the leaves of an incarnation; that of the next one is the end of their range.
func appendIncarnationKey(b []byte, incarnation uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, keyLeaf), incarnation)
}

// appendVolumeKey appends the prefix of the leaves of a volume; that of the next volume is the end of their range.
func appendVolumeKey(b []byte, incarnation uint64, v layout.VolumeID) []byte {
	return binary.BigEndian.AppendUint64(appendIncarnationKey(b, incarnation), uint64(v))
}

// appendLeafKey appends the key of a leaf.
func appendLeafKey(b []byte, incarnation uint64, id leafID) []byte {
	b = appendVolumeKey(b, incarnation, id.chunk.Volume)
	b = binary.BigEndian.AppendUint32(b, id.chunk.Index)
	return binary.BigEndian.AppendUint32(b, id.index)
}

// parseLeafKey takes a leaf's key apart.
func parseLeafKey(k []byte) (incarnation uint64, id leafID, err error) {
	if len(k) != leafKeyLen || k[0] != keyLeaf {
		return 0, leafID{}, &CorruptError{What: fmt.Sprintf("index: key %x", k)}
	}
	id.chunk.Volume = layout.VolumeID(binary.BigEndian.Uint64(k[9:]))
	id.chunk.Index = binary.BigEndian.Uint32(k[17:])
	id.index = binary.BigEndian.Uint32(k[21:])
	return binary.BigEndian.Uint64(k[1:]), id, nil
}

// record is the durable state of a copyset.
type record struct {
	incarnation, index, term uint64
	state                    []byte
}

// appendTo appends the record's encoding to b.
func (r *record) appendTo(b []byte) []byte {
	b = append(b, recordVersion, 0)
	b = binary.LittleEndian.AppendUint64(b, r.incarnation)
	b = binary.LittleEndian.AppendUint64(b, r.index)
	b = binary.LittleEndian.AppendUint64(b, r.term)
	return append(b, r.state...)
}

// parseRecord decodes a copyset record; its state is a copy.
func parseRecord(b []byte) (record, error) {
	if len(b) < recordHeader {
		return record{}, &CorruptError{What: "copyset record: short"}
	}
	if b[0] != recordVersion || b[1] != 0 {
		return record{}, &VersionError{What: "copyset record", Have: uint32(b[0]) | uint32(b[1])<<8, Knows: recordVersion}
	}
	r := record{
		incarnation: binary.LittleEndian.Uint64(b[2:]),
		index:       binary.LittleEndian.Uint64(b[10:]),
		term:        binary.LittleEndian.Uint64(b[18:]),
	}
	if len(b) > recordHeader {
		r.state = append([]byte(nil), b[recordHeader:]...)
	}
	return r, nil
}

// parseCopysetKey takes the key of a copyset record apart; its length was checked.
func parseCopysetKey(k []byte) layout.CopysetID {
	return layout.CopysetID(binary.BigEndian.Uint64(k[1:]))
}
