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
	// apart is what the checksum leaves out, in the order of the encoding.
	apart []span
}

// span is a part of a payload, in bytes.
type span struct{ at, n int }

// apartMax is how many spans a frame can name; what is more is covered by its checksum.
const apartMax = 255

// spanSize is the length of a span's encoding, in bytes.
const spanSize = 8

// lent is a piece that follows the first at bytes of Buf.
type lent struct {
	at   int
	data []byte
}

// Reset makes the frame an empty batch.
func (f *Frame) Reset() {
	clear(f.lent)
	f.Buf, f.lent, f.size, f.apart = f.Buf[:headerSize], f.lent[:0], 0, f.apart[:0]
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

// Except leaves the last n bytes of the encoding out of the frame's checksum: blocks that have checksums of their own in
// what is covered, which the receiver compares before it uses them. So nobody goes over them only for the frame.
func (f *Frame) Except(n int) {
	if n > 0 && len(f.apart) < apartMax {
		f.apart = append(f.apart, span{f.Len() - n, n})
	}
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

// finish completes the frame and appends its pieces to dst.
func (f *Frame) finish(kind byte, dst [][]byte) [][]byte {
	for _, a := range f.apart {
		f.Buf = le.AppendUint32(le.AppendUint32(f.Buf, uint32(a.at)), uint32(a.n))
	}
	le.PutUint32(f.Buf, uint32(f.Len()))
	le.PutUint32(f.Buf[4:], uint32(kind)|uint32(len(f.apart))<<8)
	first := len(dst)
	dst = f.pieces(dst)
	c := checksum{crc: crc32.Checksum(f.Buf[:8], castagnoli), apart: f.apart}
	for i, p := range dst[first:] {
		if i == 0 {
			p = p[headerSize:]
		}
		c.add(p)
	}
	le.PutUint32(f.Buf[8:], c.crc)
	return dst
}

// checksum is that of a payload whose pieces are added one after the other.
type checksum struct {
	crc   uint32
	at    int    // of the next piece in the payload
	apart []span // what is left out from there on
}

func (c *checksum) add(p []byte) {
	for len(p) > 0 {
		n := len(p)
		switch {
		case len(c.apart) == 0:
			c.crc = crc32.Update(c.crc, castagnoli, p)
		case c.at < c.apart[0].at:
			n = min(n, c.apart[0].at-c.at)
			c.crc = crc32.Update(c.crc, castagnoli, p[:n])
		default:
			end := c.apart[0].at + c.apart[0].n
			n = min(n, end-c.at)
			if c.at+n == end {
				c.apart = c.apart[1:]
			}
		}
		p, c.at = p[n:], c.at+n
	}
}

// header is that of a frame which comes in.
type header [headerSize]byte

// check returns the length of the payload, which is at most limit in a batch.
func (h *header) check(limit int) (int, error) {
	n, kind := le.Uint32(h[:]), le.Uint32(h[4:])
	switch kind &^ (apartMax << 8) {
	case kindBatch:
	case kindAlive:
		limit = 0
	case kindEnd:
		limit = helloMax
	default:
		return 0, fmt.Errorf("%w: kind %#x", ErrFrame, kind)
	}
	if h.kind() != kindBatch && h.apart() > 0 {
		return 0, fmt.Errorf("%w: kind %#x", ErrFrame, kind)
	}
	if limit += spanSize * h.apart(); uint64(n) > uint64(limit) {
		return 0, fmt.Errorf("%w: %d bytes, %d are allowed", ErrFrame, n, limit)
	}
	return int(n), nil
}

// kind returns what the frame is, and apart how many spans its checksum leaves out.
func (h *header) kind() byte { return h[4] }
func (h *header) apart() int { return int(h[5]) }

// open compares the checksum of what follows the header and returns the payload. The spans are space for those that the
// checksum leaves out.
func (h *header) open(b []byte, spans *[]span) ([]byte, error) {
	n := len(b) - spanSize*h.apart()
	if n < 0 {
		return nil, fmt.Errorf("%w: %d bytes with %d spans", ErrFrame, len(b), h.apart())
	}
	apart, end := (*spans)[:0], 0
	for t := b[n:]; len(t) > 0; t = t[spanSize:] {
		at, length := uint64(le.Uint32(t)), uint64(le.Uint32(t[4:]))
		if at < uint64(end) || length == 0 || at+length > uint64(n) {
			return nil, fmt.Errorf("%w: its checksum leaves out %d bytes at %d of %d, after %d", ErrFrame, length, at, n, end)
		}
		end = int(at + length)
		apart = append(apart, span{int(at), int(length)})
	}
	*spans = apart
	c := checksum{crc: crc32.Checksum(h[:8], castagnoli), apart: apart}
	if c.add(b); c.crc != le.Uint32(h[8:]) {
		return nil, fmt.Errorf("%w: its checksum does not fit", ErrFrame)
	}
	return b[:n], nil
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
