package blockstore

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// installBatch is the size of a batch of leaves that an installer gives to the index, in bytes.
const installBatch = 1 << 20

// Installer replaces a copyset's content by that of an image that comes in as a stream. It is used by one goroutine at a
// time. The leaves go into the index as those of a new incarnation, which nothing refers to before Finish.
type Installer struct {
	s *Store
	// next becomes the copyset's content; its record has the new incarnation.
	next *Copyset
	// err is why only Abort is left, done that Finish or Abort was called.
	err  error
	done bool
	cut  frame.Cutter

	begun, ended bool
	stateLen     uint64
	blocks       uint64
	// leaf is the leaf that is being filled, older the one before it; nil before the first.
	leaf, older     *extent.Leaf
	leafID, olderID extent.LeafID
	batch           *pebble.Batch
	taken           []extent.Run
	key             []byte
	value           []byte
	crcs            [extent.LeafBlocks]uint32
}

// NewInstaller begins to replace the content of a copyset, which need not exist.
func (s *Store) NewInstaller(id layout.CopysetID) (*Installer, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if id == 0 {
		return nil, fmt.Errorf("%w: copyset 0", ErrRange)
	}
	return &Installer{
		s: s, next: newCopyset(s, id, extent.Record{Incarnation: s.newIncarnation()}), batch: s.index.DB.NewBatch(),
	}, nil
}

// Write takes the next bytes of the stream, cut anywhere. It verifies every frame and every block and writes the
// blocks to free space of the disk. After an error (*ImageError, *VersionError, ErrNoSpace, *IOError, *PoisonedError)
// only Abort is left.
func (in *Installer) Write(p []byte) (int, error) {
	if in.done {
		return 0, &ImageError{What: "installer is done"}
	}
	if in.err != nil {
		return 0, in.err
	}
	if in.err = in.cut.Write(p, in.handle); in.err != nil {
		return 0, in.err
	}
	return len(p), nil
}

// handle takes one whole frame.
func (in *Installer) handle(b []byte) error {
	kind, p, err := frame.Parse(b)
	if err != nil {
		return err
	}
	switch {
	case in.ended:
		return &ImageError{What: "frame after the end"}
	case !in.begun:
		return in.header(kind, p)
	case kind == frame.KindState:
		r := &in.next.mu.record
		if uint64(len(r.State)+len(p)) > in.stateLen {
			return &ImageError{What: "state is longer than announced"}
		}
		r.State = append(r.State, p...)
		return nil
	case uint64(len(in.next.mu.record.State)) != in.stateLen:
		return &ImageError{What: "state is shorter than announced"}
	case kind == frame.KindVersions:
		return in.versions(p)
	case kind == frame.KindLeaf:
		return in.begin(p)
	case kind == frame.KindBlocks:
		r, err := frame.ParseBlocks(p, in.crcs[:])
		if err != nil {
			return err
		}
		return in.put(r)
	case kind == frame.KindEnd:
		if len(p) != frame.EndPayload || binary.LittleEndian.Uint64(p) != in.blocks {
			return &ImageError{What: fmt.Sprintf("%d blocks are not what was sent", in.blocks)}
		}
		in.ended = true
		return in.endLeaf(true)
	}
	return &ImageError{What: fmt.Sprintf("frame of kind %d", kind)}
}

func (in *Installer) header(kind byte, p []byte) error {
	if kind != frame.KindHeader {
		return &ImageError{What: "the stream does not begin with a header"}
	}
	id, r, state, err := frame.ParseHeader(p)
	if err != nil {
		return err
	}
	if id != in.next.id {
		return &ImageError{What: fmt.Sprintf("it is of copyset %d, not %d", id, in.next.id)}
	}
	in.begun, in.stateLen = true, state
	in.next.mu.record.Index, in.next.mu.record.Term = r.Index, r.Term
	in.next.mu.index, in.next.mu.term = r.Index, r.Term
	return nil
}

// versions takes those of a volume.
func (in *Installer) versions(p []byte) error {
	v, n, err := frame.ParseVersions(p)
	if err != nil {
		return err
	}
	if in.leaf != nil || in.older != nil || in.next.mu.Versions[v].Last != 0 || n.Last == 0 {
		return &ImageError{What: fmt.Sprintf("versions of volume %d", v)}
	}
	in.next.mu.Versions[v] = n
	in.key = extent.AppendVersionsKey(in.key[:0], in.next.mu.record.Incarnation, v)
	if err := in.batch.Set(in.key, n.AppendTo(in.value[:0]), nil); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	return nil
}

// begin begins a leaf.
func (in *Installer) begin(p []byte) error {
	if err := in.endLeaf(false); err != nil {
		return err
	}
	id, l, err := frame.ParseLeaf(p, in.olderID, in.older)
	if err != nil {
		return err
	}
	n := in.next.mu.Versions[id.Chunk.Volume]
	if in.older != nil && in.olderID.Compare(id) >= 0 || l.Born > n.Last || id.Version != 0 && (l.Born >= id.Version || !n.Has(id.Version)) {
		return &ImageError{What: fmt.Sprintf("chunk %v leaf %d of version %d born after %d", id.Chunk, id.Index, id.Version, l.Born)}
	}
	in.leaf, in.leafID = l, id
	return nil
}

// put writes a run of blocks, which lies in one leaf and behind all blocks before it.
func (in *Installer) put(r BlockRun) error {
	if err := in.s.ready(); err != nil {
		return err
	}
	id := extent.LeafID{Chunk: r.Chunk, Index: r.First / extent.LeafBlocks}
	if in.leaf == nil || in.leafID.Head() != id {
		if err := in.endLeaf(false); err != nil {
			return err
		}
		if in.older != nil && in.olderID.Compare(id) >= 0 {
			return &ImageError{What: fmt.Sprintf("chunk %v block %d is out of order", r.Chunk, r.First)}
		}
		in.leaf, in.leafID = extent.NewLeaf(0, 0), id
	}
	at := r.First % extent.LeafBlocks
	if in.leaf.Own()>>at != 0 || in.leaf.Shared>>at&(^uint64(0)>>(extent.LeafBlocks-len(r.CRCs))) != 0 {
		return &ImageError{What: fmt.Sprintf("chunk %v block %d is out of order", r.Chunk, r.First)}
	}
	var few [fewRuns]extent.Run
	runs, err := in.s.allocate(uint32(len(r.CRCs)), few[:0])
	if err != nil {
		return err
	}
	for _, t := range runs {
		in.taken = extent.AppendRun(in.taken, t.Start, t.N)
	}
	in.s.incoming.Add(int64(len(r.CRCs)))
	data, k := r.Data, 0
	for _, t := range runs {
		n := int(t.N) * layout.BlockSize
		if err := in.s.file.Write(t.Start, data[:n]); err != nil {
			return err
		}
		data = data[n:]
		for j := range t.N {
			in.leaf.Set(at, extent.Entry{Addr: t.Start + extent.Addr(j), CRC: r.CRCs[k]})
			at++
			k++
		}
	}
	in.blocks += uint64(k)
	return nil
}

// endLeaf gives the leaf that was filled to the index; flush says that the batch is to go there now.
func (in *Installer) endLeaf(flush bool) error {
	if in.leaf != nil {
		in.key = extent.AppendLeafKey(in.key[:0], in.next.mu.record.Incarnation, in.leafID)
		in.value = in.leaf.AppendTo(in.value[:0])
		if err := in.batch.Set(in.key, in.value, nil); err != nil {
			return &IOError{Op: "index", Err: err}
		}
		if in.leaf.Allocated == 0 {
			return &ImageError{What: fmt.Sprintf("chunk %v leaf %d has no blocks", in.leafID.Chunk, in.leafID.Index)}
		}
		in.next.mu.Note(in.leafID, in.leaf)
		in.older, in.olderID, in.leaf = in.leaf, in.leafID, nil
	}
	if in.batch.Len() < installBatch && !flush || in.batch.Empty() {
		return nil
	}
	if err := in.s.ready(); err != nil {
		return err
	}
	if err := in.s.index.Commit(in.batch); err != nil {
		return err
	}
	in.batch.Reset()
	return nil
}

// Finish replaces the copyset's content, applied index and state by those of the image, durably and at once, and frees
// what was there; the copyset is made when it does not exist. *ImageError when the stream did not end. Frozens that
// were taken before are obsolete. The copyset's owner calls it, or nobody owns it. On an error the old content stays
// and Abort is left; a failure of the disk, of a full file system too, poisons the store.
func (in *Installer) Finish() (*Copyset, error) {
	switch {
	case in.err != nil:
		return nil, in.err
	case in.done:
		return nil, &ImageError{What: "installer is done"}
	case !in.ended || in.cut.Inside():
		return nil, &ImageError{What: "the stream did not end"}
	}
	s := in.s
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	old, _ := s.Copyset(in.next.id) // nil when it does not exist
	var runs []extent.Run
	if old != nil {
		var err error
		if runs, _, err = old.collect(nil); err != nil {
			return nil, err
		}
	}
	if err := in.commit(); err != nil {
		return nil, err
	}
	in.done = true
	c := in.next
	if old != nil {
		gone := old.incarnation()
		old.replace(in.next, runs)
		s.forgetLeaves(gone)
		c = old
	} else {
		s.mu.Lock()
		s.mu.copysets[c.id] = c
		s.mu.Unlock()
	}
	in.forget()
	s.reclaim()
	return c, in.batch.Close()
}

// commit makes the new incarnation that of the copyset, durably. The leaves of the old one stay: until it is replaced in memory
// too, who reads it finds them in the index.
func (in *Installer) commit() error {
	s := in.s
	if err := s.file.Sync(); err != nil {
		return s.poison.Set(err)
	}
	r := &in.next.mu.record
	if err := in.batch.Set(extent.AppendCopysetKey(nil, in.next.id), r.AppendTo(nil), nil); err != nil {
		return &IOError{Op: "index", Err: err}
	}
	return s.commitOrPoison(in.batch)
}

// Abort gives the installer's blocks back. After Finish it does nothing.
func (in *Installer) Abort() {
	if in.done {
		return
	}
	in.done = true
	_ = in.batch.Close()
	if in.s.ready() != nil {
		return // nothing is allocated any more, and Open finds the blocks free
	}
	if in.s.forgetLeaves(in.next.mu.record.Incarnation) {
		in.s.file.TakeBack(in.taken)
		in.forget()
	}
}

// forget lets the blocks go that were taken.
func (in *Installer) forget() {
	in.s.incoming.Add(-int64(countBlocks(in.taken)))
	in.taken = nil
}
