package chunkclient

import (
	"encoding/binary"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ashlar-storage/ashlar/storage/chunkclient/fieldnum"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/protofield"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// runsMax bounds the runs of one answer: the blocks of the largest chunk.
const runsMax = 1 << 18

// sizeFence returns the size of a fence's content.
func sizeFence(f layout.Fence) int {
	return protofield.SizeVarint(uint64(f.Epoch)) + protofield.SizeVarint(uint64(f.Generation))
}

// sizeRequest returns the size of a request's content but its id.
func sizeRequest(r *Request) int {
	n := protofield.SizeVarint(uint64(r.Op)) + protofield.SizeVarint(uint64(r.Copyset)) + protofield.SizeVarint(uint64(r.Chunk.Volume)) +
		protofield.SizeVarint(uint64(r.Chunk.Index)) + protofield.SizeVarint(uint64(r.Offset)) + protofield.SizeVarint(uint64(r.Length)) +
		protofield.SizeVarint(uint64(r.Initiator)) + protofield.SizeBytes(sizeFence(r.Fence)) + protofield.SizeVarint(uint64(r.AccessGeneration)) +
		protofield.SizeVarint(uint64(r.Seq)) + protofield.SizeVarint(uint64(r.LowWater))
	if len(r.Data) > 0 {
		n += protofield.SizeBytes(len(r.Data))
	}
	if len(r.CRCs) > 0 {
		n += protofield.SizeBytes(4 * len(r.CRCs))
	}
	return n
}

// exceptMin is from how many bytes of whole blocks on a frame's checksum leaves them out: their own are compared by the
// chunkserver.
const exceptMin = 16 << 10

// appendRequest appends a request as a field of Requests; size is sizeRequest's.
func appendRequest(f *stream.Frame, r *Request, id uint64, size int) {
	b := protofield.AppendPrefix(f.Buf, fieldnum.RequestsRequests, protofield.SizeVarint(id)+size)
	b = protofield.AppendVarint(b, fieldnum.RequestID, id)
	b = protofield.AppendVarint(b, fieldnum.RequestOp, uint64(r.Op))
	b = protofield.AppendVarint(b, fieldnum.RequestCopyset, uint64(r.Copyset))
	b = protofield.AppendVarint(b, fieldnum.RequestVolume, uint64(r.Chunk.Volume))
	b = protofield.AppendVarint(b, fieldnum.RequestChunk, uint64(r.Chunk.Index))
	b = protofield.AppendVarint(b, fieldnum.RequestOffset, uint64(r.Offset))
	b = protofield.AppendVarint(b, fieldnum.RequestLength, uint64(r.Length))
	b = protofield.AppendVarint(b, fieldnum.RequestInitiator, uint64(r.Initiator))
	b = protofield.AppendPrefix(b, fieldnum.RequestFence, sizeFence(r.Fence))
	b = protofield.AppendVarint(b, fieldnum.FenceEpoch, uint64(r.Fence.Epoch))
	b = protofield.AppendVarint(b, fieldnum.FenceGeneration, uint64(r.Fence.Generation))
	b = protofield.AppendVarint(b, fieldnum.RequestAccessGeneration, uint64(r.AccessGeneration))
	b = protofield.AppendVarint(b, fieldnum.RequestSeq, uint64(r.Seq))
	b = protofield.AppendVarint(b, fieldnum.RequestLowWater, uint64(r.LowWater))
	if len(r.Data) > 0 {
		b = protofield.AppendPrefix(b, fieldnum.RequestData, len(r.Data))
		rest := r.Data
		blocks, skip := len(r.CRCs)*layout.BlockSize, int(-r.Offset%layout.BlockSize)
		if end := skip + blocks; r.Op == Write && blocks >= exceptMin && end <= len(rest) {
			f.Buf = append(b, rest[:end]...)
			f.Except(blocks)
			b, rest = f.Buf, rest[end:]
		}
		b = append(b, rest...)
	}
	f.Buf = protofield.AppendFixed32s(b, fieldnum.RequestCRCs, r.CRCs)
}

// answer is a response as it was received. Everything but numbers lies in the received bytes.
type answer struct {
	id       uint64
	response Response // without Message and Runs
	data     []byte
	crcs     []byte // fixed32 each
	message  []byte
	runs     []Run
}

// incoming takes batches of responses, and calls take for each of them.
type incoming struct{ take func(a *answer) }

// Parse takes a batch. The responses before a malformed one are taken.
func (in *incoming) Parse(b []byte) error {
	var f protofield.Field
	var a answer
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		if !f.Is(fieldnum.ResponsesResponses, protowire.BytesType) {
			continue
		}
		if err := a.parse(f.Bytes); err != nil {
			return err
		}
		in.take(&a)
	}
	return nil
}

// parse parses one response.
func (a *answer) parse(b []byte) error {
	*a = answer{}
	var f protofield.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch f.Type {
		case protowire.VarintType:
			a.number(f.Num, f.Number)
		case protowire.BytesType:
			err = a.bytes(f.Num, f.Bytes)
		case protowire.Fixed32Type:
			if f.Num == fieldnum.ResponseCRCs { // not packed
				a.join(binary.LittleEndian.AppendUint32(nil, uint32(f.Number)))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *answer) number(num protowire.Number, v uint64) {
	switch num {
	case fieldnum.ResponseID:
		a.id = v
	case fieldnum.ResponseStatus:
		a.response.Status = status(v)
	case fieldnum.ResponseLeader:
		a.response.Leader = layout.ChunkserverID(v)
	case fieldnum.ResponseAccessGeneration:
		a.response.AccessGeneration = layout.AccessGeneration(v)
	case fieldnum.ResponseOffset:
		a.response.Offset = uint32(v)
	}
}

// status returns the status by number. One that does not fit is none that is known.
func status(v uint64) Status {
	if v > uint64(IO) {
		return 0
	}
	return Status(v)
}

func (a *answer) bytes(num protowire.Number, v []byte) error {
	switch num {
	case fieldnum.ResponseData:
		a.data = v
	case fieldnum.ResponseCRCs:
		if len(v)%4 != 0 {
			return fmt.Errorf("chunkclient: %d bytes of checksums", len(v))
		}
		a.join(v)
	case fieldnum.ResponseMessage:
		a.message = v
	case fieldnum.ResponseFence:
		return a.fence(v)
	case fieldnum.ResponseRuns:
		return a.run(v)
	}
	return nil
}

// join adds checksums, which come in one piece unless the server is a strange one. Of the received bytes nothing is
// overwritten: a field has no room behind it.
func (a *answer) join(v []byte) {
	if a.crcs == nil {
		a.crcs = v
		return
	}
	a.crcs = append(a.crcs, v...)
}

func (a *answer) fence(b []byte) error {
	var f protofield.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Is(fieldnum.FenceEpoch, protowire.VarintType):
			a.response.Fence.Epoch = layout.Epoch(f.Number)
		case f.Is(fieldnum.FenceGeneration, protowire.VarintType):
			a.response.Fence.Generation = layout.Generation(f.Number)
		}
	}
	return nil
}

func (a *answer) run(b []byte) error {
	if len(a.runs) == runsMax {
		return fmt.Errorf("chunkclient: more than %d runs", runsMax)
	}
	var f protofield.Field
	var r Run
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Is(fieldnum.RunOffset, protowire.VarintType):
			r.Offset = uint32(f.Number)
		case f.Is(fieldnum.RunLength, protowire.VarintType):
			r.Length = uint32(f.Number)
		case f.Is(fieldnum.RunAllocated, protowire.VarintType):
			r.Allocated = f.Number != 0
		}
	}
	a.runs = append(a.runs, r)
	return nil
}

// fill fills the call from its answer. A read that answers other than it was asked is an error of the server.
func (a *answer) fill(c *Call) {
	c.Response = a.response
	c.Response.Runs = a.runs
	if len(a.message) > 0 {
		c.Response.Message = strings.ToValidUTF8(string(a.message), "\uFFFD")
	}
	if c.Request.Op != Read || c.Response.Status != OK {
		return
	}
	if len(a.data) != len(c.Dst) {
		c.Err = fmt.Errorf("chunkclient: asked for %d bytes, got %d", len(c.Dst), len(a.data))
		return
	}
	if bad := verify(a.data, a.crcs); bad >= 0 {
		c.Err = fmt.Errorf("chunkclient: block %d of the answer does not match its CRC32C", bad)
		return
	}
	copy(c.Dst, a.data)
}

// verify is layout.VerifyBlocks for checksums that are encoded.
func verify(data, crcs []byte) int {
	n := len(crcs) / 4
	if len(data) != n*layout.BlockSize {
		return n
	}
	for i := range n {
		if layout.CRC(data[i*layout.BlockSize:(i+1)*layout.BlockSize]) != binary.LittleEndian.Uint32(crcs[4*i:]) {
			return i
		}
	}
	return -1
}
