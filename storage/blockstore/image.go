package blockstore

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math/bits"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// BlockRun is a run of consecutive blocks of a chunk in an image. Its slices are valid until the next call.
type BlockRun = frame.Run

// FrameMax is the most that one frame of an image stream can be long, in bytes.
const FrameMax = frame.Max

// Image is a consistent copy of a copyset's content at its applied index.
type Image struct {
	c *Copyset
	// seq is the checkpoint that the copyset was about to make: what that and later ones free is held.
	seq         uint64
	index, term uint64
	state       []byte
	// changed holds the leaves that the index did not have, in order, versions the versions of the volumes.
	changed  []imageLeaf
	versions map[layout.VolumeID]extent.Versions

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
	// sent is where the stream is.
	stage  uint8
	stated int
	blocks uint64
}

type imageLeaf struct {
	id extent.LeafID
	l  *extent.Leaf
}

// The stages of a stream.
const (
	stageHeader = iota
	stageState
	stageVersions
	stageBlocks
	stageDone
)

// Snapshot returns a consistent image of the content, with the applied index and state. No block is copied; blocks of
// the image are not reused until Close, so an image is not to be kept longer than the transfer that it serves. The
// image owns state from now on. For the owner; the image is used by one goroutine at a time, whichever.
func (c *Copyset) Snapshot(state []byte) (*Image, error) {
	im := &Image{c: c, state: state}
	leaves := make(map[extent.LeafID]*extent.Leaf)
	c.mu.Lock()
	if c.mu.removed {
		c.mu.Unlock()
		return nil, ErrRemoved
	}
	for _, o := range c.overlaysLocked() {
		maps.Copy(leaves, o.Leaves)
	}
	c.mu.Gen++
	c.mu.imaged = c.mu.Seq
	im.seq, im.index, im.term = c.mu.Seq, c.mu.index, c.mu.term
	im.versions = maps.Clone(c.mu.Versions)
	inc := c.mu.record.Incarnation
	c.s.reclaimer.hold(im)
	c.mu.Unlock()
	// A checkpoint that ends here moves leaves into the index that changed holds too, no others.
	snap, err := c.s.index.Snapshot()
	if err != nil {
		im.Close()
		return nil, err
	}
	im.snap = snap
	it, err := snap.NewIter(&pebble.IterOptions{
		LowerBound: extent.AppendIncarnationKey(nil, extent.KeyLeaf, inc), UpperBound: extent.AppendIncarnationKey(nil, extent.KeyLeaf, inc+1),
	})
	if err != nil {
		im.Close()
		return nil, &IOError{Op: "index", Err: err}
	}
	im.it = it
	it.First()
	im.changed = make([]imageLeaf, 0, len(leaves))
	for id, l := range leaves {
		im.changed = append(im.changed, imageLeaf{id, l})
	}
	slices.SortFunc(im.changed, func(a, b imageLeaf) int { return a.id.Compare(b.id) })
	return im, nil
}

// Copyset returns the copyset that the image is of.
func (im *Image) Copyset() layout.CopysetID { return im.c.id }

// Applied returns the raft index and term of the image.
func (im *Image) Applied() (index, term uint64) { return im.index, im.term }

// State returns the image's state. The caller must not change it.
func (im *Image) State() []byte { return im.state }

// Close lets the image's blocks go. It may be called more than once.
func (im *Image) Close() {
	im.mu.Lock()
	if !im.closed {
		im.closed = true
		if im.it != nil {
			_ = im.it.Close() // only read
		}
		if im.snap != nil {
			_ = im.snap.Close()
		}
	}
	im.mu.Unlock()
	if im.c.s.reclaimer.letGo(im) {
		im.c.s.reclaim()
	}
}

// NextRun returns the next blocks of the image's content, without that of versions, verified, at most 64 of one chunk, in the
// order of volume, chunk and block; io.EOF after the last. On *ChecksumError the bad block is skipped: the next call goes on
// behind it.
func (im *Image) NextRun() (BlockRun, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.closed {
		return BlockRun{}, ErrImageClosed
	}
	for im.todo == 0 {
		if err := im.nextLeaf(); err != nil {
			return BlockRun{}, err
		}
		if im.curID.Version == 0 {
			im.todo = im.cur.Allocated
		}
	}
	return im.readNextLocked()
}

// readNextLocked reads the next of the blocks of the current leaf that are left.
func (im *Image) readNextLocked() (BlockRun, error) {
	if im.data == nil {
		im.data = make([]byte, extent.LeafBlocks*layout.BlockSize)
	}
	i := bits.TrailingZeros64(im.todo)
	n := bits.TrailingZeros64(^(im.todo >> i))
	r := BlockRun{Chunk: im.curID.Chunk, First: im.curID.Index*extent.LeafBlocks + uint32(i)}
	good, err := im.readRun(r, i, n)
	if good == 0 {
		im.todo &^= 1 << i
		return BlockRun{}, err
	}
	im.todo &^= ^uint64(0) >> (64 - good) << i
	r.CRCs, r.Data = im.crcs[:good], im.data[:good*layout.BlockSize]
	return r, nil
}

// readRun reads blocks i to i+n of the current leaf, with one read for those that follow each other in the file, and
// returns how many of them are good.
func (im *Image) readRun(r BlockRun, i, n int) (good int, err error) {
	var ents [extent.LeafBlocks]extent.Entry
	for j := range n {
		ents[j] = extent.Entry{Addr: im.cur.Addr[i+j], CRC: im.cur.CRC[i+j]}
		im.crcs[j] = ents[j].CRC
	}
	for j := 0; j < n; {
		k := 1
		for j+k < n && ents[j+k].Addr == ents[j].Addr+extent.Addr(k) {
			k++
		}
		p := im.data[j*layout.BlockSize : (j+k)*layout.BlockSize]
		if err := im.c.s.file.ReadVerified(im.c.id, r.Chunk, r.First+uint32(j), ents[j:j+k], p); err != nil {
			var bad *ChecksumError
			if errors.As(err, &bad) {
				return int(bad.Block - r.First), err
			}
			return 0, err
		}
		j += k
	}
	return n, nil
}

// nextLeaf goes to the next leaf that has blocks.
func (im *Image) nextLeaf() error {
	for {
		var id extent.LeafID
		inIndex := im.it.Valid()
		if inIndex {
			var err error
			if _, id, err = extent.ParseLeafKey(im.it.Key()); err != nil {
				return err
			}
		} else if err := im.it.Error(); err != nil {
			return &IOError{Op: "index", Err: err}
		}
		order := 1 // which comes first: -1 the index, 0 both, 1 the changed leaves
		switch {
		case !inIndex && len(im.changed) == 0:
			return io.EOF
		case inIndex && len(im.changed) == 0:
			order = -1
		case inIndex:
			order = id.Compare(im.changed[0].id)
		}
		if order < 0 {
			if err := im.fromIndex.Parse(im.it.Value()); err != nil {
				return err
			}
			im.cur, im.curID = &im.fromIndex, id
		} else {
			im.cur, im.curID = im.changed[0].l, im.changed[0].id
			im.changed = im.changed[1:]
		}
		if order <= 0 {
			im.it.Next()
		}
		if im.cur.Allocated != 0 {
			return nil
		}
	}
}

// Next returns the next frame of the image's stream in buf's space, which grows to at most FrameMax bytes; io.EOF
// after the last. An error, *ChecksumError included, ends the stream; the receiver then aborts. Next and NextRun are
// not used on the same image.
func (im *Image) Next(buf []byte) ([]byte, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	buf = buf[:0]
	switch im.stage {
	case stageHeader:
		im.stage = stageState
		return frame.AppendHeader(buf, im.c.id, im.index, im.term, len(im.state), len(im.versions) == 0), nil
	case stageState:
		if rest := im.state[im.stated:]; len(rest) > 0 {
			n := min(len(rest), frame.PayloadMax)
			im.stated += n
			return frame.End(append(frame.Begin(buf, frame.KindState), rest[:n]...), 0), nil
		}
		im.stage = stageVersions
		fallthrough
	case stageVersions:
		for v, n := range im.versions {
			delete(im.versions, v)
			return frame.AppendVersions(buf, v, n), nil
		}
		im.stage = stageBlocks
		fallthrough
	case stageBlocks:
		b, err := im.nextBlocksLocked(buf)
		if err == nil {
			return b, nil
		}
		im.stage = stageDone
		if errors.Is(err, io.EOF) {
			return frame.End(binary.LittleEndian.AppendUint64(frame.Begin(buf, frame.KindEnd), im.blocks), 0), nil
		}
		return nil, err
	}
	return nil, io.EOF
}

// nextBlocksLocked returns the next frame of a leaf.
func (im *Image) nextBlocksLocked(buf []byte) ([]byte, error) {
	if im.closed {
		return nil, ErrImageClosed
	}
	for im.todo == 0 {
		if err := im.nextLeaf(); err != nil {
			return nil, err
		}
		im.todo = im.cur.Own()
		if im.curID.Version != 0 || im.cur.Born != 0 || im.cur.Shared != 0 {
			return frame.AppendLeaf(buf, im.curID, im.cur), nil
		}
	}
	r, err := im.readNextLocked()
	if err != nil {
		return nil, err
	}
	im.blocks += uint64(len(r.CRCs))
	return frame.AppendBlocks(buf, r), nil
}

// WriteTo writes the stream, frame by frame.
func (im *Image) WriteTo(w io.Writer) (int64, error) {
	var total int64
	var buf []byte
	for {
		frame, err := im.Next(buf)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(frame)
		total += int64(n)
		if err != nil {
			return total, err
		}
		buf = frame
	}
}
