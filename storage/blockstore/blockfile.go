package blockstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"sync"
	"syscall"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	blocksName    = "blocks"
	blocksMagic   = "ashlarbk"
	blocksVersion = 1
	blocksHeader  = 36
	// punchMin is the shortest run, in blocks, whose disk space is given back to the file system.
	punchMin = 1 << 20 / layout.BlockSize
	// holesPerGrowth bounds the holes that are filled in one step of growth.
	holesPerGrowth = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// zeroCRC is the CRC32C of a block of zeroes.
var zeroCRC = crc32.Checksum(make([]byte, layout.BlockSize), castagnoli)

// blockFile is the data file with its allocator.
type blockFile struct {
	fs       vfs.FS
	dir      string
	f        vfs.File
	alloc    allocator
	capacity uint64 // blocks, 0: the file system's
	reserve  int64  // bytes
	growStep int64  // bytes
	growMu   sync.Mutex
	noPunch  bool // guarded by growMu: the file system can not punch holes
}

// isFull tells an error of a full file system.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// ioError wraps the error of an operation on the data file.
func ioError(op string, err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %s: %w", ErrNoSpace, op, err)
	}
	return &IOError{Op: op, Err: err}
}

// format makes an empty data file with a header, synced.
func (b *blockFile) format(store [16]byte) (err error) {
	f, err := b.fs.Open(path.Join(b.dir, blocksName), vfs.CreateMissing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := make([]byte, layout.BlockSize)
	copy(h, blocksMagic)
	binary.LittleEndian.PutUint16(h[8:], blocksVersion)
	copy(h[16:], store[:])
	binary.LittleEndian.PutUint32(h[32:], crc32.Checksum(h[:32], castagnoli))
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(h, 0); err != nil {
		return err
	}
	return f.Sync()
}

// open opens the data file, checks that it is store's, and makes its size known to the allocator, all blocks but the
// header free.
func (b *blockFile) open(store [16]byte) error {
	f, err := b.fs.Open(path.Join(b.dir, blocksName), vfs.ReadWrite)
	if err != nil {
		return &CorruptError{What: "blocks", Err: err}
	}
	b.f = f
	var h [blocksHeader]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		return &CorruptError{What: "blocks: header", Err: err}
	}
	if string(h[:8]) != blocksMagic || binary.LittleEndian.Uint32(h[32:]) != crc32.Checksum(h[:32], castagnoli) {
		return &CorruptError{What: "blocks: header"}
	}
	if v := binary.LittleEndian.Uint16(h[8:]); v != blocksVersion {
		return &VersionError{What: "blocks", Have: uint32(v), Knows: blocksVersion}
	}
	if [16]byte(h[16:32]) != store {
		return &CorruptError{What: "blocks: the file is of another store"}
	}
	size, err := f.Size()
	if err != nil {
		return &IOError{Op: "open", Err: err}
	}
	b.alloc.limit = ^uint64(0)
	if b.capacity > 0 {
		b.alloc.limit = b.capacity - uint64(b.reserve)/layout.BlockSize
	}
	b.alloc.extend(blockAddr(size / layout.BlockSize))
	if !b.alloc.reserve(0, 1) {
		return &CorruptError{What: "blocks: cut"}
	}
	return nil
}

// close closes the data file.
func (b *blockFile) close() error {
	if b.f == nil {
		return nil
	}
	return b.f.Close()
}

// allocate appends n free blocks to runs, growing the file as needed. It returns ErrNoSpace and no block when that would
// touch the reserve.
func (b *blockFile) allocate(n uint32, runs []run) ([]run, error) {
	for {
		out, res := b.alloc.take(n, runs)
		switch res {
		case allocDone:
			return out, nil
		case allocLimit:
			return runs, fmt.Errorf("%w: capacity", ErrNoSpace)
		case allocGrow:
			if err := b.grow(n); err != nil {
				return runs, err
			}
		}
	}
}

// grow makes at least n blocks free, unless another call did: it gives disk space to holes, and then to a longer file.
func (b *blockFile) grow(n uint32) error {
	b.growMu.Lock()
	defer b.growMu.Unlock()
	need := func() int64 {
		return (int64(n) - int64(b.alloc.counts().free)) * layout.BlockSize
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
	step := min(max(b.growStep, missing), room)
	for i := 0; step > 0 && (i < holesPerGrowth || need() > 0); i++ {
		r, ok := b.alloc.takeHole(uint32(min(step/layout.BlockSize, 1<<30)))
		if !ok {
			break
		}
		if err := b.f.Preallocate(int64(r.start)*layout.BlockSize, int64(r.n)*layout.BlockSize, true); err != nil {
			b.alloc.putHole(r)
			return ioError("grow", err)
		}
		b.alloc.fillHole(r)
		step -= int64(r.n) * layout.BlockSize
	}
	if missing = need(); missing <= 0 {
		return nil
	}
	return b.extend(missing, step)
}

// extend lengthens the file by step bytes, or by missing when the file system has not more. growMu is held.
func (b *blockFile) extend(missing, step int64) error {
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
	for {
		err := b.f.Preallocate(int64(size)*layout.BlockSize, step, false)
		if err == nil {
			break
		}
		if !isFull(err) || step == missing {
			return ioError("grow", err)
		}
		step = max(step/4/layout.BlockSize*layout.BlockSize, missing)
	}
	b.alloc.extend(size + blockAddr(step/layout.BlockSize))
	return nil
}

// release makes freed blocks that waited free; give says that long runs go back to the file system.
func (b *blockFile) release(runs []run, give bool) {
	if !give {
		b.alloc.release(runs, true)
		return
	}
	for i, r := range runs {
		if r.n >= punchMin && b.punch(r) {
			b.alloc.releaseHole(r)
		} else {
			b.alloc.release(runs[i:i+1], true)
		}
	}
}

// punch gives a run's disk space back. It returns false when it could not: then the run keeps its space.
func (b *blockFile) punch(r run) bool {
	b.growMu.Lock()
	defer b.growMu.Unlock()
	if b.noPunch {
		return false
	}
	err := b.f.PunchHole(int64(r.start)*layout.BlockSize, int64(r.n)*layout.BlockSize)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		b.noPunch = true
	}
	return err == nil
}

// write writes whole blocks to the run's blocks from the first on.
func (b *blockFile) write(at blockAddr, p []byte) error {
	if _, err := b.f.WriteAt(p, int64(at)*layout.BlockSize); err != nil {
		return ioError("write", err)
	}
	return nil
}

// read fills p with whole blocks. Its errors are the file's own.
func (b *blockFile) read(at blockAddr, p []byte) error {
	n, err := b.f.ReadAt(p, int64(at)*layout.BlockSize)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// usage returns the space of the data file and of the file system below it, in bytes.
func (b *blockFile) usage() Usage {
	n := b.alloc.counts()
	u := Usage{
		Used:        int64(n.allocated-n.pending) * layout.BlockSize,
		PendingFree: int64(n.pending) * layout.BlockSize,
		Free:        int64(n.free) * layout.BlockSize,
		Reserve:     b.reserve,
	}
	space, err := b.fs.Space(b.dir)
	if err == nil {
		u.Free += space.Free
	}
	if b.capacity > 0 {
		room := int64(b.capacity-min(b.capacity, n.allocated)) * layout.BlockSize
		if err != nil || room < u.Free {
			u.Free = room
		}
	}
	u.Capacity = u.Used + u.PendingFree + u.Free
	return u
}
