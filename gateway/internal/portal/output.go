package portal

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
)

const (
	// batchMax is the most PDUs of one writev.
	batchMax = 64
	// batchBytes is about the most data of one writev.
	batchBytes = 1 << 20
	// inlineMax is the longest data segment that is copied behind its header instead of being sent from where it lies.
	inlineMax = 1024
	// partsMax is the most parts of one writev: the data of each PDU, and what is before, between and behind them.
	partsMax = 2*batchMax + 1
	// someBytes is about the most data that the reader, or a worker, sends by itself.
	someBytes = 256 << 10
	// someMax is how many PDUs may wait before the reader sends them although there is more to read.
	someMax = 32
	// perPDU is the room that one PDU takes in the arena: header, digest, copied data, padding, digest.
	perPDU = pdu.BHSLen + pdu.DigestLen + inlineMax + 3 + pdu.DigestLen
)

// output writes PDUs to a socket, many at a time. It belongs to who holds mu: the writer, for as long as the socket does
// not take what it is given, or the reader or a worker, who send what the socket takes at once and leave the rest to it.
type output struct {
	mu           sync.Mutex
	nc           *net.TCPConn
	raw          syscall.RawConn
	unusable     error // why there is no raw
	headerDigest bool
	dataDigest   bool

	pdus  []session.PDU
	arena []byte // headers, trailers and short data; never grows, so that slices of it stay valid
	parts [][]byte
	dead  bool     // the writer sends no more, so nobody does
	rest  [][]byte // of parts: what was left to the writer
	bufs  net.Buffers
	iov   []syscall.Iovec
	wrote int                   // bytes of the try that is under way
	try   func(fd uintptr) bool // tryWrite, kept so that a write allocates nothing
	todo  session.Effects

	// since is when the write that is under way began, since the epoch; 0 if there is none.
	since    atomic.Int64
	counters *counters
}

func newOutput(nc *net.TCPConn, c *counters) *output {
	o := &output{
		nc: nc, counters: c,
		pdus:  make([]session.PDU, 0, batchMax),
		arena: make([]byte, 0, batchMax*perPDU),
		parts: make([][]byte, 0, partsMax),
		iov:   make([]syscall.Iovec, 0, partsMax),
	}
	o.raw, o.unusable = nc.SyscallConn()
	o.try = o.tryWrite
	return o
}

// send writes o.pdus, waiting for the socket as long as it takes, and releases them.
func (o *output) send() error {
	o.gather()
	return o.finish(o.parts)
}

// finish writes the parts that are left and releases o.pdus.
func (o *output) finish(parts [][]byte) error {
	o.since.Store(sinceEpoch())
	o.bufs = parts
	n, err := o.bufs.WriteTo(o.nc)
	o.since.Store(0)
	o.counters.bytesOut.Add(uint64(n))
	o.counters.writes.Add(1)
	o.release()
	return err
}

// sendSome writes of o.pdus what the socket takes at once. It reports whether that was all, and then releases them; else
// rest is what is left for the writer, who also finds out what is wrong with a socket that takes nothing.
func (o *output) sendSome() (all bool) {
	o.gather()
	o.rest = o.parts
	o.wrote = 0
	if o.unusable == nil {
		_ = o.raw.Write(o.try)
	}
	o.counters.bytesOut.Add(uint64(o.wrote))
	o.counters.writes.Add(1)
	for len(o.rest) > 0 && o.wrote >= len(o.rest[0]) {
		o.wrote -= len(o.rest[0])
		o.rest = o.rest[1:]
	}
	if len(o.rest) > 0 {
		o.rest[0] = o.rest[0][o.wrote:]
		return false
	}
	o.release()
	return true
}

// tryWrite is one writev of o.parts. It never has the caller wait.
func (o *output) tryWrite(fd uintptr) bool {
	o.iov = o.iov[:0]
	for _, p := range o.parts {
		v := syscall.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		o.iov = append(o.iov, v)
	}
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&o.iov[0])), uintptr(len(o.iov)))
		if errno == syscall.EINTR {
			continue
		}
		if errno == 0 {
			o.wrote = int(n)
		}
		clear(o.iov)
		return true
	}
}

// end is called when the writer has ended.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dead = true
	o.release()
}

// release gives back what the PDUs hold.
func (o *output) release() {
	for i := range o.pdus {
		o.pdus[i].Release()
	}
	o.pdus = o.pdus[:0]
	clear(o.parts)
	o.parts, o.rest = o.parts[:0], nil
}

// gather lays the PDUs out: what is short goes into the arena, one part for all that is next to each other there.
func (o *output) gather() {
	o.arena, o.parts = o.arena[:0], o.parts[:0]
	from := 0 // of the arena part that is being made
	for i := range o.pdus {
		p := &o.pdus[i]
		at := len(o.arena)
		o.arena = append(o.arena, p.Header[:]...)
		if o.headerDigest {
			o.arena = pdu.AppendHeaderDigest(o.arena, o.arena[at:])
		}
		data := p.Data()
		if len(data) <= inlineMax {
			o.arena = append(o.arena, data...)
		} else {
			o.parts = append(o.parts, o.arena[from:], data)
			from = len(o.arena)
		}
		o.arena = pdu.AppendTrailer(o.arena, o.dataDigest, data)
	}
	if from < len(o.arena) {
		o.parts = append(o.parts, o.arena[from:])
	}
}
