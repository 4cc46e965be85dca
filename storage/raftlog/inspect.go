package raftlog

import (
	"errors"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog/internal/spare"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// Inspected is what a log holds.
type Inspected struct {
	// Segments is how many segments recovery needs; all their records were verified.
	Segments int
	// Groups are the logs of the copysets, in no order.
	Groups []InspectedGroup
}

// InspectedGroup is the log of one copyset.
type InspectedGroup struct {
	Copyset layout.CopysetID
	// Behind is the index behind which the entries start, Last that of the last one, or Behind.
	Behind, Last uint64
	// Commit is that of the last hard state.
	Commit uint64
	// Side are the sideloaded entries, ascending.
	Side []InspectedSide
}

// InspectedSide is where the tail of a sideloaded entry is.
type InspectedSide struct {
	Index   uint64
	Extents []Extent
	// Bytes is the length of the tail, CRC its CRC32C.
	Bytes int
	CRC   uint32
}

// Inspect reads the log in dir as Open does: it verifies every record and that the batches and segments continue each other.
// It changes nothing and takes no lock: nobody may have the log open. Its errors are those of Open, and ErrNoLog.
func Inspect(fs vfs.FS, dir string, identity [16]byte) (in *Inspected, err error) {
	l := &Log{fs: fs, dir: dir, opts: Options{Identity: identity}.withDefaults(), pool: spare.NewPool(fs, dir)}
	l.mu.groups = map[layout.CopysetID]*Group{}
	defer func() { err = errors.Join(err, l.release()) }()
	d, err := l.look()
	if err != nil {
		return nil, err
	}
	if len(d.segments) == 0 {
		return nil, ErrNoLog
	}
	r := recovery{l: l, groups: map[layout.CopysetID]*builder{}}
	if err := r.run(d.segments); err != nil {
		return nil, err
	}
	in = &Inspected{Segments: len(l.segments())}
	for id, g := range l.mu.groups {
		x := InspectedGroup{Copyset: id, Behind: g.mu.trunc, Last: g.lastLocked(), Commit: g.HardState().GetCommit()}
		for i := range g.mu.slots {
			if s := &g.mu.slots[i]; s.side != nil {
				x.Side = append(x.Side, InspectedSide{
					Index: g.mu.trunc + 1 + uint64(i), Extents: s.side.extents, Bytes: s.side.tail, CRC: s.side.crc,
				})
			}
		}
		in.Groups = append(in.Groups, x)
	}
	return in, nil
}
