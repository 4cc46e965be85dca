// Package inspect looks at a block store that nobody has open, and changes nothing: whether the index can be read, whether
// it and the data file agree about which blocks are in use, and whether every block fits its checksum. The package
// comments of internal/disk and internal/extent draw the formats.
//
//	Open ──► Walk (the index, block by block in memory) ──► Hold (what the raft log has) ──► Verify, Load (the data)
package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	indexCache = 16 << 20
	// twiceMax bounds the blocks in use twice of which both owners are told.
	twiceMax = 4096
)

// Finding is something that is wrong.
type Finding struct {
	// Copyset is 0 when it is not known or not one.
	Copyset layout.CopysetID
	// Located says that Chunk, Block (its number within the chunk) and Addr (within the data file) tell where.
	Located bool
	Chunk   layout.ChunkID
	Block   uint32
	Addr    uint64
	// Version is the newest version of the volume that has the block, 0 for the content of now.
	Version uint64
	// Data says that a block's bytes are wrong, not the index.
	Data bool
	Text string
}

// Copyset is a copyset in the index.
type Copyset struct {
	ID layout.CopysetID
	// Index and Term are those of the last entry that is in the content, State is the opaque state of that moment.
	Index, Term uint64
	State       []byte
	incarnation uint64
	volumes     map[layout.VolumeID]extent.Versions
}

// Store is a store that is looked at.
type Store struct {
	header disk.Header
	file   *disk.File
	index  *disk.Index
	live   map[uint64]*Copyset // by incarnation
	size   extent.Addr         // of the data file, in blocks
	blocks int64
}

// Open opens the store in dir, whosever it is; indexFS nil is the operating system's. An error is what makes it impossible
// to look at the rest; those of blockstore.Open, and I/O errors. fsys should be one that refuses to write.
func Open(fsys vfs.FS, dir string, indexFS pebblevfs.FS) (*Store, error) {
	header, err := disk.LoadHeader(fsys, dir)
	if err != nil {
		return nil, err
	}
	s := &Store{live: map[uint64]*Copyset{}, header: header, file: disk.NewFile(fsys, dir, 0, 0, layout.BlockSize, 1)}
	if s.header.State != disk.StateFormatted {
		return nil, &extent.CorruptError{What: "IDENTITY: the store was never completely made"}
	}
	if indexFS == nil {
		indexFS = pebblevfs.Default
	}
	if err := s.open(dir, indexFS); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(dir string, indexFS pebblevfs.FS) (err error) {
	if err := s.file.Open(s.header.Store); err != nil {
		return err
	}
	size, err := s.file.Size()
	if err != nil {
		return &disk.IOError{Op: "open", Err: err}
	}
	s.size = extent.Addr(size / layout.BlockSize)
	s.index, err = disk.ReadIndex(dir, indexFS, indexCache)
	return err
}

// Close closes the files.
func (s *Store) Close() error {
	var err error
	if s.index != nil {
		err = s.index.Close()
	}
	return errors.Join(err, s.file.Close())
}

// Owner returns whose store it is.
func (s *Store) Owner() (cluster [16]byte, chunkserver layout.ChunkserverID) {
	return s.header.Owner.Cluster, s.header.Owner.Chunkserver
}

// Copysets returns the copysets that Walk met, in no order.
func (s *Store) Copysets() []*Copyset {
	out := make([]*Copyset, 0, len(s.live))
	for _, c := range s.live {
		out = append(out, c)
	}
	return out
}

// Blocks returns how many blocks the content that Walk met has, and its versions besides.
func (s *Store) Blocks() int64 { return s.blocks }

// Walk reads the whole index and tells what is wrong with it: values that can not be read, blocks that are in use twice or lie
// outside the data file. held says which copyset's entries in the raft log have a block: another's content must not. The error
// is ctx's, or one that Prevents.
func (s *Store) Walk(ctx context.Context, held map[uint64]layout.CopysetID, found func(Finding)) error {
	if err := s.records(found); err != nil {
		return err
	}
	twice := map[extent.Addr]bool{}
	var places extent.Lineage
	err := s.eachLeaf(ctx, found, func(c *Copyset, id extent.LeafID, l *extent.Leaf) {
		s.blocks += int64(bits.OnesCount64(l.Own()))
		if err := cmp.Or(places.Next(c.incarnation, id, l), c.lineage(id, l)); err != nil {
			found(Finding{Copyset: c.ID, Text: fmt.Sprintf("chunk %v: %v", id.Chunk, err)})
		}
		eachBlock(id, l, func(block uint32, e extent.Entry) {
			at := Finding{Copyset: c.ID, Located: true, Chunk: id.Chunk, Block: block, Addr: uint64(e.Addr), Version: id.Version}
			if other := held[at.Addr]; other != 0 && other != c.ID {
				at.Text = fmt.Sprintf("an entry of copyset %d in the raft log has this block", other)
				found(at)
			}
			switch {
			case s.file.ReserveRun(extent.Run{Start: e.Addr, N: 1}):
			case e.Addr >= s.size:
				at.Text = fmt.Sprintf("outside the data file, which has %d blocks", s.size)
				found(at)
			case len(twice) < twiceMax:
				twice[e.Addr] = true
			}
		})
	})
	if err != nil || len(twice) == 0 {
		return err
	}
	return s.eachLeaf(ctx, func(Finding) {}, func(c *Copyset, id extent.LeafID, l *extent.Leaf) {
		eachBlock(id, l, func(block uint32, e extent.Entry) {
			if twice[e.Addr] {
				found(Finding{
					Copyset: c.ID, Located: true, Chunk: id.Chunk, Block: block, Addr: uint64(e.Addr), Version: id.Version, Text: "in use more than once",
				})
			}
		})
	})
}

// Prevents tells whether an error says nothing of the store, but that it can not be looked at: a newer release wrote it, or
// this process may not open what it has to.
func Prevents(err error) bool {
	return errors.As(err, new(*extent.VersionError)) || errors.Is(err, fs.ErrPermission) ||
		errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// tell makes err a finding, unless it Prevents.
func tell(err error, at Finding, found func(Finding)) error {
	if err == nil || Prevents(err) {
		return err
	}
	at.Text += err.Error()
	found(at)
	return nil
}

// records reads the store record and the copyset records. The error Prevents.
func (s *Store) records(found func(Finding)) error {
	v, err := s.index.Value(extent.StoreKey())
	if err := tell(err, Finding{}, found); err != nil {
		return err
	}
	switch {
	case err != nil:
	case len(v) > 0 && v[0] > extent.StoreRecordVersion:
		return &extent.VersionError{What: "index", Have: uint32(v[0]), Knows: extent.StoreRecordVersion}
	case len(v) != extent.StoreRecordLen || [16]byte(v[1:]) != s.header.Store:
		found(Finding{Text: "index: it is of another store, or has no store record"})
	}
	err = s.index.EachRecord(func(id layout.CopysetID, r extent.Record) error {
		if c := s.live[r.Incarnation]; c != nil {
			found(Finding{Copyset: id, Text: fmt.Sprintf("index: copyset %d has the same content", c.ID)})
			return nil
		}
		s.live[r.Incarnation] = &Copyset{ID: id, Index: r.Index, Term: r.Term, State: r.State, incarnation: r.Incarnation}
		s.live[r.Incarnation].volumes = map[layout.VolumeID]extent.Versions{}
		return nil
	})
	if err := tell(err, Finding{}, found); err != nil {
		return err
	}
	err = s.index.EachVersions(func(incarnation uint64, v layout.VolumeID, n extent.Versions) error {
		if c := s.live[incarnation]; c != nil {
			c.volumes[v] = n
		}
		return nil
	})
	return tell(err, Finding{}, found)
}

// lineage checks that there are the versions that a leaf speaks of.
func (c *Copyset) lineage(id extent.LeafID, l *extent.Leaf) error {
	if n := c.volumes[id.Chunk.Volume]; l.Born > n.Last || id.Version != 0 && !n.Has(id.Version) {
		return &extent.CorruptError{What: fmt.Sprintf("leaf %d of version %d, born after %d, but the volume has %v", id.Index, id.Version, l.Born, n.Numbers)}
	}
	return nil
}

// eachLeaf calls fn for the leaves of all copysets, in the order of the index. What can not be read is found and left out; what a
// crash left of a content that is not used any more is left out. The error is ctx's, or one that Prevents.
func (s *Store) eachLeaf(ctx context.Context, found func(Finding), fn func(c *Copyset, id extent.LeafID, l *extent.Leaf)) error {
	it, err := s.index.DB.NewIter(&pebble.IterOptions{LowerBound: []byte{extent.KeyLeaf}, UpperBound: []byte{extent.KeyLeaf + 1}})
	if err != nil {
		return tell(err, Finding{Text: "index: "}, found)
	}
	defer it.Close() //nolint:errcheck // its error was asked for
	var l extent.Leaf
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		incarnation, id, err := extent.ParseLeafKey(it.Key())
		c := s.live[incarnation]
		switch {
		case err != nil:
			found(Finding{Text: err.Error()})
		case c == nil:
		default:
			if err := l.Parse(it.Value()); err != nil {
				first := id.Index * extent.LeafBlocks
				at := Finding{Copyset: c.ID, Text: fmt.Sprintf("chunk %v blocks %d to %d: ", id.Chunk, first, first+extent.LeafBlocks-1)}
				if err := tell(err, at, found); err != nil {
					return err
				}
				continue
			}
			fn(c, id, &l)
		}
	}
	return tell(it.Error(), Finding{Text: "index: what follows can not be read: "}, found)
}

// eachBlock calls fn for the blocks that the leaf owns, so for each block of a place once.
func eachBlock(id extent.LeafID, l *extent.Leaf, fn func(block uint32, e extent.Entry)) {
	for m := l.Own(); m != 0; m &= m - 1 {
		i := uint32(bits.TrailingZeros64(m))
		fn(id.Index*extent.LeafBlocks+i, extent.Entry{Addr: l.Addr[i], CRC: l.CRC[i]})
	}
}

// Hold tells, after Walk, that an entry of the raft log has blocks. It returns false when one of them is another entry's, or
// not in the file.
func (s *Store) Hold(start uint64, blocks uint32) bool {
	return s.file.Hold([]extent.Run{{Start: extent.Addr(start), N: blocks}})
}

// Load reads blocks of an entry of the raft log.
func (s *Store) Load(start uint64, p []byte) error { return s.file.Read(extent.Addr(start), p) }

// Verify reads all blocks that Walk met and compares them with their checksums. progress is told how many were read.
func (s *Store) Verify(ctx context.Context, progress func(blocks int), found func(Finding)) error {
	var of *Copyset
	var chunk layout.ChunkID
	var version uint64
	batch := make([]disk.Placed, 0, disk.ScanMax)
	flush := func() {
		where := make(map[uint32]extent.Addr, len(batch))
		for _, b := range batch {
			where[b.Block] = b.Addr
		}
		if len(batch) > 0 {
			for _, e := range s.file.Compare(of.ID, chunk, batch) {
				f := Finding{Copyset: of.ID, Located: true, Chunk: chunk, Block: e.Block, Addr: uint64(where[e.Block]), Version: version, Data: true, Text: "checksum mismatch"}
				if e.Err != nil {
					f.Text = e.Err.Error()
				}
				found(f)
			}
		}
		progress(len(batch))
		batch = batch[:0]
	}
	err := s.eachLeaf(ctx, func(Finding) {}, func(c *Copyset, id extent.LeafID, l *extent.Leaf) {
		if c != of || id.Chunk != chunk || id.Version != version || len(batch)+extent.LeafBlocks > disk.ScanMax {
			flush()
			of, chunk, version = c, id.Chunk, id.Version
		}
		eachBlock(id, l, func(block uint32, e extent.Entry) {
			if e.Addr < s.size { // else it was found before
				batch = append(batch, disk.Placed{Block: block, Entry: e})
			}
		})
	})
	if err == nil {
		flush()
	}
	return err
}
