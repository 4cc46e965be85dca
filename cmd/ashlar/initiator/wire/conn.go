package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"syscall"
	"time"
)

// TimeoutDefault bounds one wait for the target.
const TimeoutDefault = 5 * time.Second

// dataMax is the longest data segment that Recv takes, bytes.
const dataMax = 1 << 24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrQuiet says that nothing came from the target within a limit.
var ErrQuiet = errors.New("nothing came from the target")

// ErrHungUp says that the target closed the connection.
var ErrHungUp = errors.New("the target closed the connection")

// Conn is one connection. Send and Recv may be used by one goroutine each.
type Conn struct {
	// HeaderDigest and DataDigest say whether CRC32C is in use.
	HeaderDigest, DataDigest bool
	// CorruptHeaderDigest and CorruptDataDigest break the digest of the next PDU that is sent.
	CorruptHeaderDigest, CorruptDataDigest bool
	// Timeout bounds each wait.
	Timeout time.Duration

	nc net.Conn
	r  *bufio.Reader
}

// Dial connects to HOST:PORT.
func Dial(ctx context.Context, address string) (*Conn, error) { return DialFrom(ctx, nil, address) }

// DialFrom connects from an address of this machine, nil for any.
func DialFrom(ctx context.Context, from net.IP, address string) (*Conn, error) {
	d := net.Dialer{Timeout: TimeoutDefault}
	if from != nil {
		d.LocalAddr = &net.TCPAddr{IP: from}
	}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Conn{Timeout: TimeoutDefault, nc: nc, r: bufio.NewReaderSize(nc, 64<<10)}, nil
}

// Close closes the connection without a word.
func (c *Conn) Close() { _ = c.nc.Close() }

// Reset closes the connection so that the target gets a TCP RST.
func (c *Conn) Reset() {
	if t, ok := c.nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.nc.Close()
}

// CloseWrite closes the sending side.
func (c *Conn) CloseWrite() {
	if t, ok := c.nc.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}

// pad returns the zero bytes that follow a data segment of n bytes.
func pad(n int) int { return -n & 3 }

// encode appends a PDU as it goes on the wire.
func (c *Conn) encode(b []byte, p *PDU) []byte {
	h := p.BHS
	if !p.Raw {
		h[4] = byte(len(p.AHS) / 4)
		h[5], h[6], h[7] = byte(len(p.Data)>>16), byte(len(p.Data)>>8), byte(len(p.Data))
	}
	at := len(b)
	b = append(append(b, h[:]...), p.AHS...)
	if c.HeaderDigest {
		b = c.digest(b, at, &c.CorruptHeaderDigest)
	}
	if len(p.Data) == 0 {
		return b
	}
	at = len(b)
	b = append(b, p.Data...)
	b = append(b, make([]byte, pad(len(p.Data)))...)
	if c.DataDigest {
		b = c.digest(b, at, &c.CorruptDataDigest)
	}
	return b
}

// digest appends the CRC32C of b[at:], least significant byte first (RFC 7143 section 13.1).
func (c *Conn) digest(b []byte, at int, corrupt *bool) []byte {
	sum := crc32.Checksum(b[at:], castagnoli)
	if *corrupt {
		sum, *corrupt = ^sum, false
	}
	return binary.LittleEndian.AppendUint32(b, sum)
}

// Send sends PDUs in one piece.
func (c *Conn) Send(ps ...PDU) error {
	var b []byte
	for i := range ps {
		b = c.encode(b, &ps[i])
	}
	return c.SendBytes(b)
}

// SendBytes sends anything.
func (c *Conn) SendBytes(b []byte) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(c.Timeout)); err != nil {
		return hungUp(err)
	}
	_, err := c.nc.Write(b)
	return hungUp(err)
}

// hungUp turns the errors of a connection that is gone into ErrHungUp and that of a deadline into ErrQuiet.
func hungUp(err error) error {
	var ne net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w: %w", ErrHungUp, err)
	case errors.As(err, &ne) && ne.Timeout():
		return fmt.Errorf("%w: %w", ErrQuiet, err)
	}
	return err
}

// DigestError is a PDU of the target whose digest is wrong.
type DigestError struct{ What string }

func (e *DigestError) Error() string { return "wrong " + e.What + " digest from the target" }

// PaddingError is a PDU of the target whose padding is not zero: bytes that nobody asked for.
type PaddingError struct{ Pad []byte }

func (e *PaddingError) Error() string { return fmt.Sprintf("padding % x from the target", e.Pad) }

// Recv waits for the next PDU, Timeout at most.
func (c *Conn) Recv() (PDU, error) { return c.RecvWithin(c.Timeout) }

// RecvWithin waits for the next PDU, d at most: ErrQuiet when none came, ErrHungUp when none will.
func (c *Conn) RecvWithin(d time.Duration) (PDU, error) {
	var p PDU
	if err := c.nc.SetReadDeadline(time.Now().Add(d)); err != nil {
		return p, hungUp(err)
	}
	p, err := c.recv()
	return p, hungUp(err)
}

func (c *Conn) recv() (PDU, error) {
	var p PDU
	if _, err := io.ReadFull(c.r, p.BHS[:]); err != nil {
		return p, err
	}
	n := p.DataLen()
	if n > dataMax {
		return p, fmt.Errorf("data segment of %d bytes", n)
	}
	p.AHS = make([]byte, int(p.BHS[4])*4)
	if _, err := io.ReadFull(c.r, p.AHS); err != nil {
		return p, err
	}
	if c.HeaderDigest {
		if err := c.checkDigest("header", append(p.BHS[:], p.AHS...)); err != nil {
			return p, err
		}
	}
	if n == 0 {
		return p, nil
	}
	b := make([]byte, n+pad(n))
	if _, err := io.ReadFull(c.r, b); err != nil {
		return p, err
	}
	p.Data = b[:n:n]
	for _, z := range b[n:] {
		if z != 0 {
			return p, &PaddingError{b[n:]}
		}
	}
	if c.DataDigest {
		return p, c.checkDigest("data", b)
	}
	return p, nil
}

func (c *Conn) checkDigest(what string, b []byte) error {
	var sum [4]byte
	if _, err := io.ReadFull(c.r, sum[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(sum[:]) != crc32.Checksum(b, castagnoli) {
		return &DigestError{what}
	}
	return nil
}
