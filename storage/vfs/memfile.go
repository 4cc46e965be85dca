package vfs

import (
	"io"
	iofs "io/fs"
	"syscall"
)

const (
	// memPage is the unit of allocation of a Mem, in bytes.
	memPage = 4096
	// memWriteback is how many bytes of unsynced writes a file keeps apart; above it the Mem writes all of them
	// back, as a kernel may do at any time.
	memWriteback = 64 << 20
)

// page is the content of memPage bytes. A frozen page is shared (with the durable content or another Mem) and never
// changed.
type page struct {
	b      [memPage]byte
	frozen bool
}

// memPages maps page numbers to contents; a nil page is allocated and reads as zero, a missing one is a hole.
type memPages map[int64]*page

// memChange is one unsynced operation: data was written at off, or [off, end) was zeroed.
type memChange struct {
	off, end int64
	data     []byte // nil: zeroed
	size     int64  // of the file afterwards
	resized  bool
}

// memData is the content of a file: as seen, as durable, and the changes between them in order.
type memData struct {
	pages memPages
	size  int64

	stable     memPages
	stableSize int64

	changes      []memChange
	changedBytes int
	// touched lists for each page the changes that overlap it, ascending.
	touched map[int64][]int32
}

func newMemData() memData {
	return memData{pages: memPages{}, stable: memPages{}, touched: map[int64][]int32{}}
}

// sync makes the content durable.
func (d *memData) sync() {
	for i := range d.touched {
		if p, ok := d.pages[i]; ok {
			if p != nil {
				p.frozen = true
			}
			d.stable[i] = p
		} else {
			delete(d.stable, i)
		}
	}
	d.stableSize = d.size
	d.changes, d.changedBytes = nil, 0
	clear(d.touched)
}

// record notes a change that is about to be applied.
func (d *memData) record(c memChange) {
	c.resized = c.size != d.size
	d.changes = append(d.changes, c)
	d.changedBytes += len(c.data)
	d.size = c.size
}

func (d *memData) touch(i int64) { d.touched[i] = append(d.touched[i], int32(len(d.changes)-1)) }

// writable returns page i, made or copied so that it may be changed.
func (d *memData) writable(i int64) *page {
	p := d.pages[i]
	if p == nil || p.frozen {
		q := &page{}
		if p != nil {
			q.b = p.b
		}
		d.pages[i], p = q, q
	}
	return p
}

func (d *memData) write(b []byte, off int64) {
	end := off + int64(len(b))
	d.record(memChange{off: off, end: end, data: append([]byte{}, b...), size: max(d.size, end)})
	for i := off / memPage; i*memPage < end; i++ {
		d.touch(i)
		at := max(off, i*memPage)
		copy(d.writable(i).b[at-i*memPage:], b[at-off:])
	}
	if d.changedBytes > memWriteback {
		d.sync()
	}
}

// zero clears [off, end), frees the pages wholly inside and sets the size.
func (d *memData) zero(off, end, size int64) {
	d.record(memChange{off: off, end: end, size: size})
	for i := range d.pages {
		lo, hi := i*memPage, (i+1)*memPage
		if hi <= off || lo >= end {
			continue
		}
		d.touch(i)
		if off <= lo && hi <= end {
			delete(d.pages, i)
			continue
		}
		clear(d.writable(i).b[max(off, lo)-lo : min(end, hi)-lo])
	}
}

// reserve allocates the pages of [off, end).
func (d *memData) reserve(off, end, size int64) {
	d.record(memChange{off: off, end: off, size: size})
	for i := off / memPage; i*memPage < end; i++ {
		if _, ok := d.pages[i]; !ok {
			d.touch(i)
			d.pages[i] = nil
		}
	}
}

func (d *memData) read(p []byte, off int64) int {
	if off >= d.size {
		return 0
	}
	p = p[:min(int64(len(p)), d.size-off)]
	for n := 0; n < len(p); {
		at := off + int64(n)
		in := at % memPage
		part := p[n:min(len(p), n+int(memPage-in))]
		if pg := d.pages[at/memPage]; pg != nil {
			copy(part, pg.b[in:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p)
}

// memFile is an open file of a Mem. All fields are set at opening; closed is guarded by the Mem's mutex.
type memFile struct {
	fs     *Mem
	node   *memNode
	name   string
	write  bool
	direct bool
	closed bool
}

func (f *memFile) checkLocked(op string, write bool, off, length int64) error {
	switch {
	case f.closed:
		return pathErr(op, f.name, iofs.ErrClosed)
	case write && !f.write:
		return pathErr(op, f.name, syscall.EBADF)
	case off < 0 || length < 0 || off+length < off:
		return pathErr(op, f.name, syscall.EINVAL)
	}
	return nil
}

// change runs one change of the content and keeps account of the space; want are the bytes that may be allocated.
func (f *memFile) change(op string, off, length int64, alloc bool, run func(d *memData)) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked(op, true, off, length); err != nil {
		return err
	}
	d := &f.node.memData
	if alloc {
		need := int64(0)
		for i := off / memPage; i*memPage < off+length; i++ {
			if _, ok := d.pages[i]; !ok {
				need++
			}
		}
		if need > 0 && (f.fs.mu.used+need)*memPage > f.fs.mu.capacity {
			return pathErr(op, f.name, syscall.ENOSPC)
		}
	}
	before := len(d.pages)
	run(d)
	if f.node.links > 0 {
		f.fs.mu.used += int64(len(d.pages) - before)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if f.direct && !IsAligned(p, off) {
		return 0, pathErr("read", f.name, syscall.EINVAL)
	}
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if err := f.checkLocked("read", false, off, int64(len(p))); err != nil {
		return 0, err
	}
	n := f.node.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.direct && !IsAligned(p, off) {
		return 0, pathErr("write", f.name, syscall.EINVAL)
	}
	if err := f.change("write", off, int64(len(p)), true, func(d *memData) {
		if len(p) > 0 {
			d.write(p, off)
		}
	}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	return f.change("sync", 0, 0, false, func(d *memData) { d.sync() })
}

func (f *memFile) Truncate(size int64) error {
	return f.change("truncate", size, 0, false, func(d *memData) { d.zero(size, max(size, d.size), size) })
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if err := f.checkLocked("stat", false, 0, 0); err != nil {
		return 0, err
	}
	return f.node.size, nil
}

func (f *memFile) Preallocate(off, length int64, keepSize bool) error {
	if length == 0 {
		return pathErr("fallocate", f.name, syscall.EINVAL)
	}
	return f.change("fallocate", off, length, true, func(d *memData) {
		size := max(d.size, off+length)
		if keepSize {
			size = d.size
		}
		d.reserve(off, off+length, size)
	})
}

func (f *memFile) PunchHole(off, length int64) error {
	if length == 0 {
		return pathErr("fallocate", f.name, syscall.EINVAL)
	}
	return f.change("fallocate", off, length, false, func(d *memData) { d.zero(off, off+length, d.size) })
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathErr("close", f.name, iofs.ErrClosed)
	}
	f.closed = true
	return nil
}
