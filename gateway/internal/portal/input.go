package portal

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// inputSize is the size of a connection's read buffer, in bytes. One read takes in as many PDUs as fit.
const inputSize = 64 << 10

// input reads PDUs from a socket. What the peer sends is taken in large pieces; a data segment that is not all there is
// read straight to where it belongs.
//
// idle, if there is one, is called on the reader's goroutine when there is nothing to read, before the reader waits for
// it: by then all that the peer has sent in one go was taken, and the answers can be sent in one go, too.
type input struct {
	raw      syscall.RawConn
	unusable error // why there is no raw
	idle     func()

	limits pdu.Limits
	buf    []byte
	r, w   int // buf[r:w] was read and not used

	head  pdu.Header
	size  pdu.FrameSize
	ahs   []byte
	extra [pdu.MaxAHSLen]byte // the AHS, kept while buf moves

	// Of the read that is under way.
	into []byte
	got  int
	err  error
	try  func(fd uintptr) bool // tryRead, kept so that a read allocates nothing

	last     atomic.Int64 // time of the last read that brought bytes, since the portal's epoch
	counters *counters
}

// epoch is what times are counted from, so that they fit an atomic; only differences are used.
var epoch = time.Now()

func sinceEpoch() int64 { return int64(time.Since(epoch)) }

func newInput(nc *net.TCPConn, c *counters) *input {
	in := &input{buf: make([]byte, inputSize), counters: c}
	in.raw, in.unusable = nc.SyscallConn()
	in.try = in.tryRead
	return in
}

// buffered returns the number of bytes that can be had without a read.
func (in *input) buffered() int { return in.w - in.r }

// fill reads until n bytes are buffered, at most inputSize.
func (in *input) fill(n int) error {
	if in.buffered() >= n {
		return nil
	}
	if in.r > 0 && in.r+n > len(in.buf) || in.r == in.w {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for in.buffered() < n {
		got, err := in.read(in.buf[in.w:])
		in.w += got
		if err != nil && in.buffered() < n {
			if errors.Is(err, io.EOF) && in.buffered() > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// read is one read of the socket that brings something.
func (in *input) read(p []byte) (int, error) {
	if in.unusable != nil {
		return 0, in.unusable
	}
	in.into = p
	err := in.raw.Read(in.try)
	in.into = nil
	if err != nil {
		return 0, err
	}
	if in.got > 0 {
		in.last.Store(sinceEpoch())
		in.counters.bytesIn.Add(uint64(in.got))
		in.counters.reads.Add(1)
	}
	return in.got, in.err
}

// tryRead reads what is there and reports whether that was anything, or an error.
func (in *input) tryRead(fd uintptr) bool {
	for {
		n, err := syscall.Read(int(fd), in.into)
		switch {
		case err == nil && n == 0:
			in.got, in.err = 0, io.EOF
			return true
		case err == nil:
			in.got, in.err = n, nil
			return true
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EAGAIN):
			in.got, in.err = 0, fmt.Errorf("portal: read: %w", err)
			return true
		}
		if in.idle != nil {
			in.idle()
		}
		return false
	}
}

// ready reports whether the header of the next PDU, and what follows it up to the data segment, is buffered.
func (in *input) ready() bool {
	if in.buffered() < pdu.BHSLen {
		return false
	}
	h := (*pdu.Header)(in.buf[in.r:])
	size, err := pdu.Layout(h, in.limits)
	return err != nil || in.buffered() >= pdu.BHSLen+size.HeaderRest()
}

// header reads the header of the next PDU into head, size and ahs. A *pdu.FormatError or *pdu.DigestError leaves head
// valid.
func (in *input) header() error {
	if err := in.fill(pdu.BHSLen); err != nil {
		return err
	}
	in.head = pdu.Header(in.buf[in.r:])
	size, err := pdu.Layout(&in.head, in.limits)
	if err != nil {
		return err
	}
	if err := in.fill(pdu.BHSLen + size.HeaderRest()); err != nil {
		return unexpected(err)
	}
	in.r += pdu.BHSLen
	in.size = size
	if size.HeaderRest() == 0 {
		in.ahs = nil
		return nil
	}
	ahs, err := size.CheckHeader(&in.head, in.buf[in.r:in.r+size.HeaderRest()])
	if err != nil {
		return err
	}
	in.ahs = in.extra[:copy(in.extra[:], ahs)]
	in.r += size.HeaderRest()
	return nil
}

// dataReady reports whether the whole data segment is buffered.
func (in *input) dataReady() bool { return in.buffered() >= in.size.DataRest() }

// data puts the data segment into dst, which is as long, and checks its digest.
func (in *input) data(dst []byte) error {
	if in.size.DataRest() == 0 {
		return nil
	}
	n := copy(dst, in.buf[in.r:in.w])
	in.r += n
	for n < len(dst) {
		got, err := in.read(dst[n:])
		n += got
		if err != nil && n < len(dst) {
			return unexpected(err)
		}
	}
	trailer := in.size.Pad + in.size.DataDigest
	if trailer == 0 {
		return nil
	}
	if err := in.fill(trailer); err != nil {
		return unexpected(err)
	}
	err := in.size.CheckSplitData(dst, in.buf[in.r:in.r+trailer])
	in.r += trailer
	return err
}

// discard throws the data segment away. Its digest is not looked at.
func (in *input) discard() error {
	for left := in.size.DataRest(); left > 0; {
		if in.buffered() == 0 {
			if err := in.fill(1); err != nil {
				return unexpected(err)
			}
		}
		n := min(left, in.buffered())
		in.r += n
		left -= n
	}
	return nil
}

// unexpected says that the connection ended within a PDU.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("within a PDU: %w", io.ErrUnexpectedEOF)
	}
	return err
}
