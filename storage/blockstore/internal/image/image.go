// Package image reads the content of a copyset as it was at one moment: its blocks in their order, or as a stream of frames
// (package frame draws them).
//
//	leaves that had changed ──┐ by place,
//	                          ├─────────────► leaf ─► runs of blocks, read and verified ─► NextRun, Next
//	snapshot of the index   ──┘ the changed first
//
// Who makes a Reader sees to it that no block of the content is reused before Close.
package image

import (
	"errors"
	"io"
	"math/bits"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// ErrClosed means that the image was closed, or that its copyset was removed from the index.
var ErrClosed = errors.New("blockstore: image closed")

// Source is a frozen content.
type Source struct {
	Copyset layout.CopysetID
	// Index and Term are those of the last applied entry, State the opaque state of that moment.
	Index, Term uint64
	State       []byte
	// Versions are those of each volume that has or had any. The reader owns the map.
	Versions map[layout.VolumeID]extent.Versions
	// Changed holds the leaves that are not in the index as the content has them; those without blocks are not in the content.
	Changed map[extent.LeafID]*extent.Leaf
	// Incarnation is that of the leaves in the index.
	Incarnation uint64
	File        *disk.File
	Maps        *disk.Index
}

// Reader reads an image. It is used by one goroutine at a time; Close may be called by any.
type Reader struct {
	src Source
	// changed are those of src, in order.
	changed []changedLeaf

	// mu is held while the image is read and while it is closed.
	mu     sync.Mutex
	closed bool
	snap   *pebble.Snapshot
	it     *pebble.Iterator
	// cur is the leaf that is being read and todo its blocks that were not yet. fromIndex is the space of a leaf that
	// comes from the index.
	cur       *extent.Leaf
	curID     extent.LeafID
	todo      uint64
	fromIndex extent.Leaf
	data      []byte
	crcs      [extent.LeafBlocks]uint32
	// stage is where the stream is, stated how much of the state is in it, blocks how many blocks are.
	stage  stage
	stated int
	blocks uint64
}

type changedLeaf struct {
	id extent.LeafID
	l  *extent.Leaf
}

// New returns a reader of src. The snapshot of the index is taken now: a checkpoint since src.Changed was collected has moved leaves
// into the index that are in src.Changed too, no others.
func New(src Source) (*Reader, error) {
	snap, err := src.Maps.Snapshot()
	if err != nil {
		return nil, err
	}
	it, err := snap.NewIter(&pebble.IterOptions{
		LowerBound: extent.AppendIncarnationKey(nil, extent.KeyLeaf, src.Incarnation),
		UpperBound: extent.AppendIncarnationKey(nil, extent.KeyLeaf, src.Incarnation+1),
	})
	if err != nil {
		_ = snap.Close() // only read
		return nil, &disk.IOError{Op: "index", Err: err}
	}
	it.First()
	r := &Reader{src: src, snap: snap, it: it, changed: make([]changedLeaf, 0, len(src.Changed))}
	for id, l := range src.Changed {
		r.changed = append(r.changed, changedLeaf{id, l})
	}
	r.src.Changed = nil
	slices.SortFunc(r.changed, func(a, b changedLeaf) int { return a.id.Compare(b.id) })
	return r, nil
}

// Copyset returns the copyset that the image is of.
func (r *Reader) Copyset() layout.CopysetID { return r.src.Copyset }

// Applied returns the raft index and term of the image.
func (r *Reader) Applied() (index, term uint64) { return r.src.Index, r.src.Term }

// State returns the image's state. The caller must not change it.
func (r *Reader) State() []byte { return r.src.State }

// Close ends the reading, and waits for a call that is in progress. It may be called more than once.
func (r *Reader) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	_ = r.it.Close() // only read
	_ = r.snap.Close()
}

// NextRun returns the next blocks of the image's content, without that of versions, verified, at most 64 of one chunk, in the
// order of volume, chunk and block; io.EOF after the last. On *extent.ChecksumError the bad block is skipped: the next call
// goes on behind it.
func (r *Reader) NextRun() (frame.Run, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.nextOfHeadLocked(); err != nil {
		return frame.Run{}, err
	}
	return r.readNextLocked()
}

// NextSums is NextRun without Data: it reads the extent maps and no block.
func (r *Reader) NextSums() (frame.Run, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.nextOfHeadLocked(); err != nil {
		return frame.Run{}, err
	}
	i := bits.TrailingZeros64(r.todo)
	n := bits.TrailingZeros64(^(r.todo >> i))
	r.todo &^= ^uint64(0) >> (64 - n) << i
	return frame.Run{
		Chunk: r.curID.Chunk, First: r.curID.Index*extent.LeafBlocks + uint32(i),
		CRCs: r.crcs[:copy(r.crcs[:], r.cur.CRC[i:i+n])],
	}, nil
}

// nextOfHeadLocked goes to a leaf of the content of now that has blocks left, unless it is at one.
func (r *Reader) nextOfHeadLocked() error {
	if r.closed {
		return ErrClosed
	}
	for r.todo == 0 {
		if err := r.nextLeafLocked(); err != nil {
			return err
		}
		if r.curID.Version == 0 {
			r.todo = r.cur.Allocated
		}
	}
	return nil
}

// readNextLocked reads the next of the blocks of the current leaf that are left.
func (r *Reader) readNextLocked() (frame.Run, error) {
	if r.data == nil {
		r.data = make([]byte, extent.LeafBlocks*layout.BlockSize)
	}
	i := bits.TrailingZeros64(r.todo)
	n := bits.TrailingZeros64(^(r.todo >> i))
	run := frame.Run{Chunk: r.curID.Chunk, First: r.curID.Index*extent.LeafBlocks + uint32(i)}
	good, err := r.readRunLocked(run, i, n)
	if good == 0 {
		r.todo &^= 1 << i
		return frame.Run{}, err
	}
	r.todo &^= ^uint64(0) >> (64 - good) << i
	run.CRCs, run.Data = r.crcs[:good], r.data[:good*layout.BlockSize]
	return run, nil
}

// readRunLocked reads blocks i to i+n of the current leaf, with one read for those that follow each other in the file, and
// returns how many of them are good.
func (r *Reader) readRunLocked(run frame.Run, i, n int) (good int, err error) {
	var ents [extent.LeafBlocks]extent.Entry
	for j := range n {
		ents[j] = extent.Entry{Addr: r.cur.Addr[i+j], CRC: r.cur.CRC[i+j]}
		r.crcs[j] = ents[j].CRC
	}
	for j := 0; j < n; {
		k := 1
		for j+k < n && ents[j+k].Addr == ents[j].Addr+extent.Addr(k) {
			k++
		}
		p := r.data[j*layout.BlockSize : (j+k)*layout.BlockSize]
		if err := r.src.File.ReadVerified(r.src.Copyset, run.Chunk, run.First+uint32(j), ents[j:j+k], p); err != nil {
			var bad *extent.ChecksumError
			if errors.As(err, &bad) {
				return int(bad.Block - run.First), err
			}
			return 0, err
		}
		j += k
	}
	return n, nil
}

// nextLeafLocked goes to the next leaf that has blocks.
func (r *Reader) nextLeafLocked() error {
	for {
		var id extent.LeafID
		inIndex := r.it.Valid()
		if inIndex {
			var err error
			if _, id, err = extent.ParseLeafKey(r.it.Key()); err != nil {
				return err
			}
		} else if err := r.it.Error(); err != nil {
			return &disk.IOError{Op: "index", Err: err}
		}
		order := 1 // which comes first: -1 the index, 0 both, 1 the changed leaves
		switch {
		case !inIndex && len(r.changed) == 0:
			return io.EOF
		case inIndex && len(r.changed) == 0:
			order = -1
		case inIndex:
			order = id.Compare(r.changed[0].id)
		}
		if order < 0 {
			if err := r.fromIndex.Parse(r.it.Value()); err != nil {
				return err
			}
			r.cur, r.curID = &r.fromIndex, id
		} else {
			r.cur, r.curID = r.changed[0].l, r.changed[0].id
			r.changed = r.changed[1:]
		}
		if order <= 0 {
			r.it.Next()
		}
		if r.cur.Allocated != 0 {
			return nil
		}
	}
}
