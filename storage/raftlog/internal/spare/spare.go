// Package spare keeps files of one size ready to become segments of a log, so that an append need not make one:
//
//	Make ──► ready ──Take──► the caller renames it to a segment
//	           ▲                         │
//	           └──────────Put────────────┘ freed, and renamed back to Next
//
// Writing over a file that was written before needs no metadata of the file system; a new one is filled with zeros past the
// page cache, which makes the first pass over it as fast as the later ones.
package spare

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	// Suffix ends the name of a spare.
	Suffix = ".spare"
	// fillBytes is the length of one write when a file is filled.
	fillBytes = 1 << 20
	// digits is the length of the number in a name.
	digits = 16
)

// File is a file that waits to become a segment.
type File struct {
	// Name is its name in the directory, Size its length in bytes.
	Name string
	Size int64
}

// Name returns the name of a numbered file.
func Name(number uint64, suffix string) string { return fmt.Sprintf("%0*x%s", digits, number, suffix) }

// ParseName reads a name that Name made.
func ParseName(name, suffix string) (number uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != digits {
		return 0, false
	}
	number, err := strconv.ParseUint(hex, 16, 64)
	return number, err == nil && strings.ToLower(hex) == hex
}

// Pool are the spares of a directory, and those being made. Its methods may be called by anyone at any time.
type Pool struct {
	fs  vfs.FS
	dir string
	mu  struct {
		sync.Mutex
		files  []File
		making int
		next   uint64 // the last number used in a name
	}
}

// NewPool returns the pool of a directory, without files.
func NewPool(fs vfs.FS, dir string) *Pool { return &Pool{fs: fs, dir: dir} }

// Saw notes that a name with that number is in use.
func (p *Pool) Saw(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.next = max(p.mu.next, number)
}

// Next returns a name that was not used before.
func (p *Pool) Next() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.next++
	return Name(p.mu.next, Suffix)
}

// Make makes a file of size bytes under a spare's name, which is not in the pool. fill writes and syncs it; else its blocks
// are only reserved. After an error no file is left.
func (p *Pool) Make(size int64, fill bool) (File, error) {
	sp := File{Name: p.Next(), Size: size}
	name := path.Join(p.dir, sp.Name)
	f, err := p.fs.Create(name)
	if err != nil {
		return File{}, err
	}
	err = f.Preallocate(0, size, false)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		fill, err = true, nil
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && fill {
		err = FillZero(p.fs, name, size)
	}
	if err != nil {
		_ = p.fs.Remove(name) // the first error wins; whoever opens the directory removes what stays
		return File{}, err
	}
	return sp, nil
}

// FillZero writes zeros to all of a file and syncs it: past the page cache where the file system can, for else the zeros
// cost two copies and push out what is wanted.
func FillZero(fs vfs.FS, name string, size int64) error {
	err := fillBy(fs, name, size, vfs.ReadWrite|vfs.Direct)
	if errors.Is(err, syscall.EINVAL) { // no direct I/O here
		err = fillBy(fs, name, size, vfs.ReadWrite)
	}
	return err
}

func fillBy(fs vfs.FS, name string, size int64, flags vfs.OpenFlags) error {
	f, err := fs.Open(name, flags)
	if err != nil {
		return err
	}
	zeros := vfs.Aligned(int(min(size, fillBytes)))
	for off := int64(0); err == nil && off < size; off += fillBytes {
		_, err = f.WriteAt(zeros[:min(size-off, fillBytes)], off)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// Prepare makes one filled spare of size bytes if there are fewer than limit, those being made included, and reports whether
// it did.
func (p *Pool) Prepare(size int64, limit int) (bool, error) {
	if !p.begin(limit) {
		return false, nil
	}
	sp, err := p.Make(size, true)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.making--
	if err != nil {
		return false, err
	}
	p.mu.files = append(p.mu.files, sp)
	return true, nil
}

// begin claims a place for a spare about to be made.
func (p *Pool) begin(limit int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.files)+p.mu.making >= limit {
		return false
	}
	p.mu.making++
	return true
}

// Put adds a file that has a spare's name.
func (p *Pool) Put(sp File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.files = append(p.mu.files, sp)
}

// Take gives a spare out; the last one only to those who may use the reserve.
func (p *Pool) Take(reserve bool) (File, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.mu.files)
	if n == 0 || n == 1 && !reserve {
		return File{}, false
	}
	sp := p.mu.files[n-1]
	p.mu.files = p.mu.files[:n-1]
	return sp, true
}

// Count returns the number of spares, and their length together in bytes.
func (p *Pool) Count() (files int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sp := range p.mu.files {
		bytes += sp.Size
	}
	return len(p.mu.files), bytes
}
