package portal

import (
	"net"
	"sync/atomic"

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
	// perPDU is the room that one PDU takes in the arena: header, digest, copied data, padding, digest.
	perPDU = pdu.BHSLen + pdu.DigestLen + inlineMax + 3 + pdu.DigestLen
)

// output writes PDUs to a socket, many at a time.
type output struct {
	nc           *net.TCPConn
	headerDigest bool
	dataDigest   bool

	pdus  []session.PDU
	arena []byte // headers, trailers and short data; never grows, so that slices of it stay valid
	parts [][]byte
	bufs  net.Buffers
	todo  session.Effects

	// since is when the write that is under way began, since the epoch; 0 if there is none.
	since    atomic.Int64
	counters *counters
}

func newOutput(nc *net.TCPConn, c *counters) *output {
	return &output{
		nc: nc, counters: c,
		pdus:  make([]session.PDU, 0, batchMax),
		arena: make([]byte, 0, batchMax*perPDU),
		parts: make([][]byte, 0, 2*batchMax+1),
	}
}

// send writes o.pdus and releases them.
func (o *output) send() error {
	o.gather()
	o.since.Store(sinceEpoch())
	o.bufs = o.parts
	n, err := o.bufs.WriteTo(o.nc)
	o.since.Store(0)
	o.counters.bytesOut.Add(uint64(n))
	o.counters.writes.Add(1)
	clear(o.parts)
	o.release()
	return err
}

// release gives back what the PDUs hold.
func (o *output) release() {
	for i := range o.pdus {
		o.pdus[i].Release()
	}
	o.pdus = o.pdus[:0]
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
