package chunkrpc

import (
	"sync"
	"sync/atomic"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
)

// keepData is the largest buffer that a response keeps for its next use, in bytes.
const keepData = 256 << 10

var responses = sync.Pool{New: func() any { return new(chunkv1.Response) }}

// acquire returns an empty response; it may have space in Data and Crcs.
func acquire() *chunkv1.Response { return responses.Get().(*chunkv1.Response) }

// release takes a response back that was sent, or is not needed.
func release(p *chunkv1.Response) {
	data, crcs := p.Data, p.Crcs
	p.Reset()
	if cap(data) <= keepData {
		p.Data, p.Crcs = data[:0], crcs[:0]
	}
	responses.Put(p)
}

// space returns n bytes, in buf if they fit.
func space(buf []byte, n int) []byte {
	if cap(buf) >= n {
		return buf[:n]
	}
	return make([]byte, n)
}

// Stats counts requests and their data.
type Stats struct {
	Reads, Writes, Others   atomic.Uint64
	ReadBytes, WrittenBytes atomic.Uint64
}

func (s *Stats) count(r *chunkv1.Request) {
	switch r.GetOp() {
	case chunkv1.Op_OP_READ:
		s.Reads.Add(1)
		s.ReadBytes.Add(uint64(r.GetLength()))
	case chunkv1.Op_OP_WRITE:
		s.Writes.Add(1)
		s.WrittenBytes.Add(uint64(len(r.GetData())))
	default:
		s.Others.Add(1)
	}
}
