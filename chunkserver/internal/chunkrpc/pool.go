package chunkrpc

import (
	"sync"
	"sync/atomic"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
)

const (
	// keepData is the largest buffer that a response keeps for its next use, in bytes.
	keepData = 256 << 10
	// keepLong is the size of the buffers, in bytes, that are kept for responses that are longer, but not than this.
	keepLong = 1 << 20
)

// keepCRCs is how many checksums a batch keeps space for.
const keepCRCs = 16 << 10

var responses = sync.Pool{New: func() any { return new(response) }}

// acquire returns an empty response; it may have space in data and crcs.
func acquire() *response { return responses.Get().(*response) }

// refuse returns a response that has a status and nothing else.
func refuse(id uint64, status chunkv1.Status) *response {
	p := acquire()
	p.id, p.status = id, status
	return p
}

// release takes a response back that was sent, or is not needed.
func release(p *response) {
	data, crcs := p.data, p.crcs
	*p = response{}
	switch {
	case cap(data) <= keepData:
		p.data, p.crcs = data[:0], crcs[:0]
	case cap(data) == keepLong:
		long.Put((*[keepLong]byte)(data[:keepLong]))
		p.crcs = crcs[:0]
	}
	responses.Put(p)
}

var long = sync.Pool{New: func() any { return new([keepLong]byte) }}

// reserve makes data n bytes long; what is in it is not said.
func (p *response) reserve(n int) {
	switch {
	case n <= cap(p.data):
		p.data = p.data[:n]
	case n > keepData && n <= keepLong:
		p.data = long.Get().(*[keepLong]byte)[:n]
	default:
		p.data = make([]byte, n)
	}
}

// Stats counts requests and their data.
type Stats struct {
	Reads, Writes, Others   atomic.Uint64
	ReadBytes, WrittenBytes atomic.Uint64
	// Damaged counts requests whose data did not match its checksums.
	Damaged atomic.Uint64
}

func (s *Stats) count(r *request) {
	switch r.op {
	case chunkv1.Op_OP_READ:
		s.Reads.Add(1)
		s.ReadBytes.Add(uint64(r.command.Length))
	case chunkv1.Op_OP_WRITE:
		s.Writes.Add(1)
		s.WrittenBytes.Add(uint64(len(r.data)))
	default:
		s.Others.Add(1)
	}
}
