// Package pages appends to a file in whole pages, past the system's page cache.
//
//	file    │ page │ page │ pa··0000│
//	                        ▲ the next write begins here: the page is written again, with what it holds
//
// The system would write back the whole of a cached piece (a large folio) of which a write changed a part, several times what
// was appended. Pages that are full are never written again.
package pages

import (
	"errors"
	"syscall"

	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	// Size is the length of a page, in bytes.
	Size = vfs.DirectAlign
	// writeMax is the most that one write carries, in bytes.
	writeMax = 1 << 20
)

// Writer appends to one file at a time. Its zero value has none. It is used by one goroutine at a time.
type Writer struct {
	// file is the caller's, for what direct can not do; direct is nil where the file system has no direct I/O.
	file, direct vfs.File
	// page is where buf goes; its first fill bytes are in the file already.
	page int64
	fill int
	buf  []byte
}

// Open lets the writer go on at off in a file that the caller has open, and keeps open, under this name. The file must reach
// to the end of the page of whatever is written.
func (w *Writer) Open(fs vfs.FS, name string, file vfs.File, off int64) error {
	if err := w.Close(); err != nil {
		return err
	}
	w.page, w.fill = off&^(Size-1), int(off&(Size-1))
	w.grow(Size)
	if w.fill > 0 {
		if _, err := file.ReadAt(w.buf[:w.fill], w.page); err != nil {
			return err
		}
	}
	direct, err := fs.Open(name, vfs.ReadWrite|vfs.Direct)
	switch {
	case errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP):
		direct = nil
	case err != nil:
		return err
	}
	w.file, w.direct = file, direct
	return nil
}

// Close ends the use of the file, which the caller closes.
func (w *Writer) Close() (err error) {
	if w.direct != nil {
		err = w.direct.Close()
	}
	w.file, w.direct = nil, nil
	return err
}

// Write appends p, and zeros to the end of its last page. p is borrowed. After an error the writer is to be closed.
func (w *Writer) Write(p []byte) error {
	w.grow(w.fill + len(p))
	for len(p) > 0 {
		n := copy(w.buf[w.fill:], p)
		p = p[n:]
		end := w.fill + n
		whole := (end + Size - 1) &^ (Size - 1)
		clear(w.buf[end:whole])
		if err := w.put(w.buf[:whole]); err != nil {
			return err
		}
		full := end &^ (Size - 1)
		w.page += int64(full)
		w.fill = copy(w.buf, w.buf[full:end])
	}
	return nil
}

// grow makes room for n bytes in one write, or for as many as one carries. What is in the file already is kept.
func (w *Writer) grow(n int) {
	if n = min(n, writeMax); n <= len(w.buf) {
		return
	}
	n = min(max(2*len(w.buf), (n+Size-1)&^(Size-1)), writeMax)
	buf := vfs.Aligned(n)
	copy(buf, w.buf[:min(w.fill, len(w.buf))])
	w.buf = buf
}

// put writes whole pages.
func (w *Writer) put(p []byte) error {
	if w.direct != nil {
		_, err := w.direct.WriteAt(p, w.page)
		if !errors.Is(err, syscall.EINVAL) {
			return err
		}
		// The file system opens such files and then refuses to write.
		err = w.direct.Close()
		if w.direct = nil; err != nil {
			return err
		}
	}
	_, err := w.file.WriteAt(p, w.page)
	return err
}
