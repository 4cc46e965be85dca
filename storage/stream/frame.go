package stream

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"sync"
)

// headerSize is the length of a frame's header, in bytes.
const headerSize = 12

// The kinds of frames.
const (
	kindBatch = iota
	kindAlive
	kindEnd
)

// ErrFrame means that what came in is no frame: the stream can not be followed any more.
var ErrFrame = errors.New("stream: invalid frame")

// Frame is a batch in the making. The zero value is not usable; NewFrame returns one.
type Frame struct {
	// Buf is the encoding so far. It begins with space for the header; append to it, and leave that alone.
	Buf []byte
	// lent is what is sent where it lies, in the order of the encoding.
	lent []lent
	size int // of lent, in bytes
}

// lent is a piece that follows the first at bytes of Buf.
type lent struct {
	at   int
	data []byte
}

// Reset makes the frame an empty batch.
func (f *Frame) Reset() {
	clear(f.lent)
	f.Buf, f.lent, f.size = f.Buf[:headerSize], f.lent[:0], 0
}

// Len returns the length of the payload, in bytes.
func (f *Frame) Len() int { return len(f.Buf) - headerSize + f.size }

// Room returns how many bytes can be appended to Buf without moving it.
func (f *Frame) Room() int { return cap(f.Buf) - len(f.Buf) }

// Lend makes p the next piece of the encoding. It is sent where it lies, and must not change until the frame was sent.
func (f *Frame) Lend(p []byte) {
	if len(p) == 0 {
		return
	}
	f.lent = append(f.lent, lent{len(f.Buf), p})
	f.size += len(p)
}

// Payload appends the payload to b.
func (f *Frame) Payload(b []byte) []byte {
	for i, p := range f.pieces(nil) {
		if i == 0 {
			p = p[headerSize:]
		}
		b = append(b, p...)
	}
	return b
}

// pieces appends all pieces to dst, in order.
func (f *Frame) pieces(dst [][]byte) [][]byte {
	at := 0
	for _, l := range f.lent {
		if l.at > at {
			dst = append(dst, f.Buf[at:l.at])
		}
		dst, at = append(dst, l.data), l.at
	}
	if at < len(f.Buf) {
		dst = append(dst, f.Buf[at:])
	}
	return dst
}

// finish writes the header and appends the pieces to dst.
func (f *Frame) finish(kind byte, dst [][]byte) [][]byte {
	le.PutUint32(f.Buf, uint32(f.Len()))
	le.PutUint32(f.Buf[4:], uint32(kind))
	first := len(dst)
	dst = f.pieces(dst)
	crc := crc32.Checksum(f.Buf[:8], castagnoli)
	for i, p := range dst[first:] {
		if i == 0 {
			p = p[headerSize:]
		}
		crc = crc32.Update(crc, castagnoli, p)
	}
	le.PutUint32(f.Buf[8:], crc)
	return dst
}

// header is that of a frame which comes in.
type header [headerSize]byte

// check returns the length of the payload, which is at most limit in a batch.
func (h *header) check(limit int) (int, error) {
	n, kind := le.Uint32(h[:]), le.Uint32(h[4:])
	switch kind {
	case kindBatch:
	case kindAlive:
		limit = 0
	case kindEnd:
		limit = helloMax
	default:
		return 0, fmt.Errorf("%w: kind %#x", ErrFrame, kind)
	}
	if uint64(n) > uint64(limit) {
		return 0, fmt.Errorf("%w: %d bytes, %d are allowed", ErrFrame, n, limit)
	}
	return int(n), nil
}

// verify compares the checksum.
func (h *header) verify(payload []byte) error {
	if crc32.Update(crc32.Checksum(h[:8], castagnoli), castagnoli, payload) != le.Uint32(h[8:]) {
		return fmt.Errorf("%w: its checksum does not fit", ErrFrame)
	}
	return nil
}

// The sizes of frames that are kept, as powers of two: 4 KiB to 4 MiB. A batch with 1 MiB of data is longer than that.
const (
	tierMin = 12
	tierMax = 22
)

var frames [tierMax - tierMin + 1]sync.Pool

// NewFrame returns an empty frame with room for n bytes. Free takes it back.
func NewFrame(n int) *Frame {
	n += headerSize
	tier := max(bits.Len(uint(n-1)), tierMin)
	if tier > tierMax {
		return &Frame{Buf: make([]byte, headerSize, n)}
	}
	if f, ok := frames[tier-tierMin].Get().(*Frame); ok {
		return f
	}
	return &Frame{Buf: make([]byte, headerSize, 1<<tier)}
}

// Free gives the frame back. One that is larger than those that are kept is left to the collector.
func (f *Frame) Free() {
	f.Reset()
	if tier := bits.Len(uint(cap(f.Buf))) - 1; tier >= tierMin && tier <= tierMax { // the largest that it has room for
		frames[tier-tierMin].Put(f)
	}
}
