package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	// BlocksName is the name of the data file.
	BlocksName    = "blocks"
	blocksMagic   = "ashlarbk"
	blocksVersion = 1
	blocksHeader  = 36
	// punchMin is the shortest run, in blocks, whose disk space is given back to the file system.
	punchMin = 1 << 20 / layout.BlockSize
	// spareShare bounds the free blocks that the file holds so that writes lie together: one in spareShare of what the
	// file system has left.
	spareShare = 8
	// tightBlocks is after how many blocks it is looked again whether a disk that was short, or refused, has room.
	tightBlocks = 64 << 20 / layout.BlockSize
	// holesPerGrowth bounds the holes that are filled in one step of growth.
	holesPerGrowth = 64
)

// File is the data file with its allocator.
type File struct {
	fs       vfs.FS
	dir      string
	f        vfs.File // reads and syncs, and writes where direct is nil
	direct   atomic.Pointer[directFile]
	buffers  sync.Pool // of *[]byte, see buffer
	late     late
	alloc    allocator
	capacity uint64 // blocks, 0: the file system's
	reserve  int64  // bytes
	growStep int64  // bytes
	writers  int    // of a flush
	growMu   sync.Mutex
	growing  atomic.Pointer[int64] // while disk space is being given to the file: what the file system had free before, in bytes
	tight    atomic.Int64          // blocks to be allocated before spread looks again whether the disk is short
	settle   sync.Once             // digs the holes
	noPunch  bool                  // guarded by growMu: the file system can not punch holes
	opened   vfs.File              // what Close closes besides f
}

// directFile is the data file opened for writes that pass by the page cache. A write through the page cache to a range
// that lies there in large folios would have the whole folios written back, many times what was changed.
type directFile struct{ vfs.File }

// NewFile returns the data file in dir, to be formatted or opened; the sizes are in bytes. writers is how many writes of
// a flush are under way at a time.
func NewFile(fs vfs.FS, dir string, capacity, reserve, growStep int64, writers int) *File {
	return &File{
		fs: fs, dir: dir, capacity: uint64(capacity / layout.BlockSize), reserve: reserve, growStep: growStep,
		writers: writers,
	}
}

// isFull tells an error of a full file system.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// WrapIO wraps the error of an operation on the data file.
func WrapIO(op string, err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %s: %w", ErrNoSpace, op, err)
	}
	return &IOError{Op: op, Err: err}
}

// Format makes an empty data file with a header, synced.
func (b *File) Format(store [16]byte) (err error) {
	f, err := b.fs.Open(path.Join(b.dir, BlocksName), vfs.CreateMissing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := make([]byte, layout.BlockSize)
	copy(h, blocksMagic)
	binary.LittleEndian.PutUint16(h[8:], blocksVersion)
	copy(h[16:], store[:])
	binary.LittleEndian.PutUint32(h[32:], extent.Checksum(h[:32]))
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(h, 0); err != nil {
		return err
	}
	return f.Sync()
}

// Open opens the data file, checks that it is store's, and makes its size known to the allocator, all blocks but the
// header free.
func (b *File) Open(store [16]byte) error {
	f, err := b.fs.Open(path.Join(b.dir, BlocksName), vfs.ReadWrite|vfs.Random)
	if err != nil {
		return damagedIf(errors.Is(err, fs.ErrNotExist), "blocks", err)
	}
	b.f = f
	var h [blocksHeader]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		return damagedIf(errors.Is(err, io.EOF), "blocks: header", err)
	}
	switch v := binary.LittleEndian.Uint16(h[8:]); {
	case string(h[:8]) != blocksMagic:
		return &extent.CorruptError{What: "blocks: header"}
	case v != blocksVersion:
		return &extent.VersionError{What: "blocks", Have: uint32(v), Knows: blocksVersion}
	case binary.LittleEndian.Uint32(h[32:]) != extent.Checksum(h[:32]):
		return &extent.CorruptError{What: "blocks: header"}
	case [16]byte(h[16:32]) != store:
		return &extent.CorruptError{What: "blocks: the file is of another store"}
	}
	size, err := f.Size()
	if err != nil {
		return &IOError{Op: "open", Err: err}
	}
	if err := b.openDirect(); err != nil {
		return err
	}
	b.alloc.limit = ^uint64(0)
	if b.capacity > 0 {
		b.alloc.limit = b.capacity - uint64(b.reserve)/layout.BlockSize
	}
	b.alloc.extend(extent.Addr(size / layout.BlockSize))
	if !b.alloc.reserve(0, 1) {
		return &extent.CorruptError{What: "blocks: cut"}
	}
	return nil
}

// openDirect opens the file for direct writes, unless the file system has none.
func (b *File) openDirect() error {
	d, err := b.fs.Open(path.Join(b.dir, BlocksName), vfs.ReadWrite|vfs.Direct)
	switch {
	case errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP):
		return nil
	case err != nil:
		return &IOError{Op: "open", Err: err}
	}
	b.opened = d
	b.direct.Store(&directFile{d})
	return nil
}

// damagedIf returns an error of opening a file as damage or as an I/O error.
func damagedIf(damaged bool, what string, err error) error {
	if damaged {
		return &extent.CorruptError{What: what, Err: err}
	}
	return &IOError{Op: "open", Err: err}
}

// Close closes the data file.
func (b *File) Close() error {
	var err error
	if b.opened != nil {
		err = b.opened.Close()
	}
	if b.f != nil {
		err = errors.Join(err, b.f.Close())
	}
	return err
}

// Allocate appends n free blocks to runs, growing the file as needed. It returns ErrNoSpace and no block when that would
// touch the reserve.
func (b *File) Allocate(n uint32, runs []extent.Run) ([]extent.Run, error) {
	b.settle.Do(b.digHoles)
	for settle := false; ; {
		out, res := b.alloc.take(n, settle, runs)
		switch res {
		case allocDone:
			return out, nil
		case allocLimit:
			return runs, fmt.Errorf("%w: capacity", ErrNoSpace)
		case allocCrowded:
			b.spread(n, streamOf(n))
			settle = true
		case allocGrow:
			if err := b.grow(n); err != nil {
				return runs, err
			}
			settle = true
		}
	}
}

// AllocateTogether takes n free blocks that follow each other, at most an area of 1 MiB, growing the file if need be. It returns
// false when there are none.
func (b *File) AllocateTogether(n uint32) (extent.Run, bool) {
	b.settle.Do(b.digHoles)
	r, ok := b.alloc.takeTogether(n)
	if !ok {
		b.spread(n, together)
		r, ok = b.alloc.takeTogether(n)
	}
	return r, ok
}

// spread makes the file longer although it has free blocks, because they lie in small pieces: what is written together
// would become many small writes. It stops at as many free blocks as the stream of an allocation of n blocks may have, and
// before the disk is short.
func (b *File) spread(n uint32, s stream) {
	if b.tight.Load() > 0 && b.tight.Add(-int64(n)) > 0 {
		return
	}
	b.growMu.Lock()
	defer b.growMu.Unlock()
	c := b.alloc.counts()
	if c.Free >= spareOf[s]*(c.Used+c.Pending) || !b.alloc.crowded(s) {
		return
	}
	space, err := b.fs.Space(b.dir)
	if room := space.Free - b.reserve; err != nil || room < 2*b.growStep || room/spareShare < c.Free*layout.BlockSize {
		b.tight.Store(tightBlocks)
		return
	}
	// A failure, of a quota for example, is no harm: the pieces will do.
	_, ok, err := b.fillHole(b.growStep, s)
	if err == nil && !ok {
		err = b.extend(layout.BlockSize, b.growStep, s)
	}
	if err != nil {
		b.tight.Store(tightBlocks)
	}
}

// grows notes what is free until the function that it returns is called. The file system takes the space bit by bit, which may last
// for seconds, and the allocator has it in the end: meanwhile Usage would miss it. growMu is held.
func (b *File) grows() (done func()) {
	if space, err := b.fs.Space(b.dir); err == nil {
		b.growing.Store(&space.Free)
	}
	return func() { b.growing.Store(nil) }
}

// fillHole gives a hole of at most most bytes disk space, where s goes on. growMu is held.
func (b *File) fillHole(most int64, s stream) (extent.Run, bool, error) {
	r, ok := b.alloc.takeHole(uint32(min(most/layout.BlockSize, 1<<30)))
	if !ok {
		return r, false, nil
	}
	defer b.grows()()
	if err := b.f.Preallocate(int64(r.Start)*layout.BlockSize, int64(r.N)*layout.BlockSize, true); err != nil {
		b.alloc.putHole(r)
		return r, false, WrapIO("grow", err)
	}
	b.alloc.fillHole(r)
	b.alloc.begin(s, r.Start)
	return r, true, nil
}

// grow makes at least n blocks free, unless another call did: it gives disk space to holes, and then to a longer file.
func (b *File) grow(n uint32) error {
	b.growMu.Lock()
	defer b.growMu.Unlock()
	need := func() int64 {
		return (int64(n) - b.alloc.counts().Free) * layout.BlockSize
	}
	missing := need()
	if missing <= 0 {
		return nil
	}
	space, err := b.fs.Space(b.dir)
	if err != nil {
		return &IOError{Op: "grow", Err: err}
	}
	room := space.Free - b.reserve
	if room < missing {
		return fmt.Errorf("%w: the file system has %d bytes, the reserve is %d", ErrNoSpace, space.Free, b.reserve)
	}
	step := min(max(b.growStep, missing), room) / layout.BlockSize * layout.BlockSize
	for i := 0; step > 0 && (i < holesPerGrowth || need() > 0); i++ {
		r, ok, err := b.fillHole(step, streamOf(n))
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		step -= int64(r.N) * layout.BlockSize
	}
	if missing = need(); missing <= 0 {
		return nil
	}
	return b.extend(missing, step, streamOf(n))
}

// extend lengthens the file by step bytes, or by missing when the file system has not more, and s goes on there. growMu is
// held.
func (b *File) extend(missing, step int64, s stream) error {
	size := b.alloc.size()
	most := int64(1) << 62
	if b.capacity > 0 {
		most = (int64(b.capacity) - int64(size)) * layout.BlockSize
	}
	if most < missing {
		// The rest of the capacity is in freed blocks that wait.
		return fmt.Errorf("%w: capacity", ErrNoSpace)
	}
	step = min(max(step, missing), most) / layout.BlockSize * layout.BlockSize
	defer b.grows()()
	for {
		err := b.f.Preallocate(int64(size)*layout.BlockSize, step, false)
		if err == nil {
			break
		}
		if !isFull(err) || step == missing {
			return WrapIO("grow", err)
		}
		step = max(step/4/layout.BlockSize*layout.BlockSize, missing)
	}
	b.alloc.extend(size + extent.Addr(step/layout.BlockSize))
	b.alloc.begin(s, size)
	return nil
}

// Release makes freed blocks that waited free; give says that long runs go back to the file system.
func (b *File) Release(runs []extent.Run, give bool) {
	b.late.drop(runs)
	runs = b.alloc.leave(runs)
	if !give {
		b.alloc.release(runs, true)
		return
	}
	for i, r := range runs {
		if r.N >= punchMin && b.punch(r) {
			b.alloc.releaseHole(r)
		} else {
			b.alloc.release(runs[i:i+1], true)
		}
	}
}

// punch gives a run's disk space back. It returns false when it could not: then the run keeps its space.
func (b *File) punch(r extent.Run) bool {
	b.growMu.Lock()
	defer b.growMu.Unlock()
	if b.noPunch {
		return false
	}
	err := b.f.PunchHole(int64(r.Start)*layout.BlockSize, int64(r.N)*layout.BlockSize)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		b.noPunch = true
	}
	return err == nil
}

// TakeBack makes blocks free that were allocated and that no index and no reader has seen.
func (b *File) TakeBack(runs []extent.Run) {
	b.late.drop(runs)
	b.alloc.release(runs, false)
}

// Retire counts n blocks that are in use as freed and waiting for release.
func (b *File) Retire(n uint64) { b.alloc.retire(n) }

// ReserveRun marks a run in use, after open. It returns false when a block of it is in use already or not in the file.
func (b *File) ReserveRun(r extent.Run) bool { return b.alloc.reserve(r.Start, r.N) }

// digHoles makes the long free runs holes, after the last ReserveRun and Hold: it is not known which of them have disk
// space behind them.
func (b *File) digHoles() { b.alloc.digHoles(punchMin) }

// Sync makes everything that was written durable. After an error it must not be called again.
func (b *File) Sync() error {
	if err := b.f.Sync(); err != nil {
		return &IOError{Op: "sync", Err: err}
	}
	return nil
}

// Size returns the length of the file, in bytes.
func (b *File) Size() (int64, error) { return b.f.Size() }

// Write writes whole blocks to the run's blocks from the first on. p is borrowed.
func (b *File) Write(at extent.Addr, p []byte) error {
	if b.direct.Load() == nil || vfs.IsAligned(p, 0) {
		return b.writeAligned(at, p)
	}
	buf := b.buffer()
	defer b.buffers.Put(buf)
	for len(p) > 0 {
		n := copy(*buf, p)
		if err := b.writeAligned(at, (*buf)[:n]); err != nil {
			return err
		}
		p, at = p[n:], at+extent.Addr(n/layout.BlockSize)
	}
	return nil
}

// writeAligned writes blocks whose memory is aligned, or any where there is no direct I/O.
func (b *File) writeAligned(at extent.Addr, p []byte) error {
	off := int64(at) * layout.BlockSize
	if d := b.direct.Load(); d != nil {
		_, err := d.WriteAt(p, off)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINVAL) {
			return WrapIO("write", err)
		}
		b.direct.Store(nil) // the file system opens such files and then refuses to write
	}
	if _, err := b.f.WriteAt(p, off); err != nil {
		return WrapIO("write", err)
	}
	return nil
}

// Prefetch tells that n blocks from at on are about to be read, so that the disk reads the pieces of a scattered range side
// by side. Of blocks that were not written yet the file has nothing to be read.
func (b *File) Prefetch(at extent.Addr, n uint32) {
	p, ok := b.f.(vfs.Prefetcher)
	if !ok {
		return
	}
	for n > 0 {
		here, absent := uint32(0), n
		if b.late.bytes.Load() != 0 {
			here, absent = b.late.span(at, n)
		}
		if absent > 0 {
			p.Prefetch(int64(at+extent.Addr(here))*layout.BlockSize, int64(absent)*layout.BlockSize)
		}
		at, n = at+extent.Addr(here+absent), n-here-absent
	}
}

// Read fills p with whole blocks. Its errors are the file's own.
func (b *File) Read(at extent.Addr, p []byte) error {
	if b.late.bytes.Load() == 0 {
		return b.readFile(at, p)
	}
	for len(p) > 0 {
		// What is absent was written before, and stays where it is while the caller may read.
		here, absent := b.late.read(at, p)
		p, at = p[here*layout.BlockSize:], at+extent.Addr(here)
		if absent > 0 {
			n := absent * layout.BlockSize
			if err := b.readFile(at, p[:n]); err != nil {
				return err
			}
			p, at = p[n:], at+extent.Addr(absent)
		}
	}
	return nil
}

func (b *File) readFile(at extent.Addr, p []byte) error {
	n, err := b.f.ReadAt(p, int64(at)*layout.BlockSize)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Usage returns the blocks in use and pending, and how much can still be allocated, the reserve included, in bytes.
func (b *File) Usage() (n Counts, room int64) {
	b.settle.Do(b.digHoles)
	before := b.growing.Load()
	n = b.alloc.counts()
	room = n.Free * layout.BlockSize
	space, err := b.fs.Space(b.dir)
	switch {
	case err == nil && before != nil:
		room += *before
	case err == nil:
		room += space.Free
	}
	if b.capacity > 0 {
		left := max(int64(b.capacity)-n.Used-n.Pending, 0) * layout.BlockSize
		if err != nil || left < room {
			room = left
		}
	}
	return n, room
}

// Counts returns the number of blocks in each state.
func (b *File) Counts() Counts { return b.alloc.counts() }
