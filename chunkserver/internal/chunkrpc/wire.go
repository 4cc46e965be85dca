package chunkrpc

import (
	"encoding/binary"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/fieldnum"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/protofield"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// request is one request of a batch, in the types of a command.
type request struct {
	id      uint64
	op      chunkv1.Op
	copyset layout.CopysetID
	// command has all but Op, CRCs and Payload, which mutation sets. Reads have their fields there too.
	command copyset.Command
	// data and crcs lie in the received bytes and in the batch.
	data []byte
	crcs []uint32
}

// batch is a received batch. It is used again for the next one.
type batch struct {
	version uint32
	reqs    []request
	crcs    []uint32
}

var errBatch = fmt.Errorf("more than %d requests in a batch", inflightMax)

// parse parses a batch, which lies in b from now on.
func (t *batch) parse(b []byte) error {
	t.reset()
	var f protofield.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Is(fieldnum.RequestsVersion, protowire.VarintType):
			t.version = uint32(f.Number)
		case f.Is(fieldnum.RequestsRequests, protowire.BytesType):
			if len(t.reqs) == inflightMax {
				return errBatch
			}
			t.reqs = append(t.reqs, request{})
			if err := t.request(&t.reqs[len(t.reqs)-1], f.Bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// reset forgets the batch and keeps its space, but for what an unusually large one took.
func (t *batch) reset() {
	clear(t.reqs)
	if cap(t.crcs) > keepCRCs {
		t.crcs = nil
	}
	*t = batch{reqs: t.reqs[:0], crcs: t.crcs[:0]}
}

// request parses one request.
func (t *batch) request(r *request, b []byte) error {
	first := len(t.crcs)
	var f protofield.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Type == protowire.VarintType:
			r.number(f.Num, f.Number)
		case f.Is(fieldnum.RequestData, protowire.BytesType):
			r.data = f.Bytes
		case f.Is(fieldnum.RequestFence, protowire.BytesType):
			if err := r.fence(f.Bytes); err != nil {
				return err
			}
		case f.Is(fieldnum.RequestCRCs, protowire.BytesType):
			if len(f.Bytes)%4 != 0 {
				return fmt.Errorf("%d bytes of checksums", len(f.Bytes))
			}
			for p := f.Bytes; len(p) > 0; p = p[4:] {
				t.crcs = append(t.crcs, binary.LittleEndian.Uint32(p))
			}
		case f.Is(fieldnum.RequestCRCs, protowire.Fixed32Type): // not packed
			t.crcs = append(t.crcs, uint32(f.Number))
		}
	}
	r.crcs = t.crcs[first:len(t.crcs):len(t.crcs)]
	return nil
}

func (r *request) number(num protowire.Number, v uint64) {
	c := &r.command
	switch num {
	case fieldnum.RequestID:
		r.id = v
	case fieldnum.RequestOp:
		r.op = chunkv1.Op(int32(v))
	case fieldnum.RequestCopyset:
		r.copyset = layout.CopysetID(v)
	case fieldnum.RequestVolume:
		c.Chunk.Volume = layout.VolumeID(v)
	case fieldnum.RequestChunk:
		c.Chunk.Index = uint32(v)
	case fieldnum.RequestOffset:
		c.Offset = uint32(v)
	case fieldnum.RequestLength:
		c.Length = uint32(v)
	case fieldnum.RequestInitiator:
		c.Initiator = layout.InitiatorID(v)
	case fieldnum.RequestAccessGeneration:
		c.Access = layout.AccessGeneration(v)
	case fieldnum.RequestSeq:
		c.Seq = layout.Seq(v)
	case fieldnum.RequestLowWater:
		c.LowWater = layout.Seq(v)
	}
}

func (r *request) fence(b []byte) error {
	var f protofield.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Is(fieldnum.FenceEpoch, protowire.VarintType):
			r.command.Fence.Epoch = layout.Epoch(f.Number)
		case f.Is(fieldnum.FenceGeneration, protowire.VarintType):
			r.command.Fence.Generation = layout.Generation(f.Number)
		}
	}
	return nil
}

// response is one answer. It owns its slices.
type response struct {
	id      uint64
	status  chunkv1.Status
	leader  layout.ChunkserverID
	fence   layout.Fence
	access  layout.AccessGeneration
	offset  uint32
	message string // valid UTF-8
	runs    []blockstore.Run
	data    []byte
	crcs    []uint32
}

// length is about how long the encoding is, in bytes, and how much memory a response takes.
func (p *response) length() int {
	return len(p.data) + 4*len(p.crcs) + runLength*len(p.runs) + responseOverhead
}

// say sets the message. A message of protobuf is valid UTF-8, which a name in an error need not be.
func (p *response) say(err error) { p.message = strings.ToValidUTF8(err.Error(), "\uFFFD") }

func (p *response) sizeFence() int {
	return protofield.SizeVarint(uint64(p.fence.Epoch)) + protofield.SizeVarint(uint64(p.fence.Generation))
}

func sizeRun(r *blockstore.Run) int {
	return protofield.SizeVarint(uint64(r.Offset)) + protofield.SizeVarint(uint64(r.Length)) + protofield.SizeVarint(flag(r.Allocated))
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// size returns the size of the response's content.
func (p *response) size() int {
	n := protofield.SizeVarint(p.id) + protofield.SizeVarint(uint64(p.status)) + protofield.SizeVarint(uint64(p.leader)) +
		protofield.SizeVarint(uint64(p.access)) + protofield.SizeVarint(uint64(p.offset))
	if len(p.data) > 0 {
		n += protofield.SizeBytes(len(p.data))
	}
	if len(p.crcs) > 0 {
		n += protofield.SizeBytes(4 * len(p.crcs))
	}
	if p.fence != (layout.Fence{}) {
		n += protofield.SizeBytes(p.sizeFence())
	}
	if p.message != "" {
		n += protofield.SizeBytes(len(p.message))
	}
	for i := range p.runs {
		n += protofield.SizeBytes(sizeRun(&p.runs[i]))
	}
	return n
}

// appendTo appends the response's content, of which long data is lent to the frame.
func (p *response) appendTo(f *stream.Frame) {
	b := protofield.AppendVarint(f.Buf, fieldnum.ResponseID, p.id)
	b = protofield.AppendVarint(b, fieldnum.ResponseStatus, uint64(p.status))
	if len(p.data) > 0 {
		b = protofield.AppendPrefix(b, fieldnum.ResponseData, len(p.data))
		if len(p.data) < lendMin {
			b = append(b, p.data...)
		} else {
			f.Buf = b
			f.Lend(p.data)
			if len(p.data) == len(p.crcs)*layout.BlockSize { // the client compares them
				f.Except(len(p.data))
			}
		}
	}
	b = protofield.AppendFixed32s(b, fieldnum.ResponseCRCs, p.crcs)
	b = protofield.AppendVarint(b, fieldnum.ResponseLeader, uint64(p.leader))
	if p.fence != (layout.Fence{}) {
		b = protofield.AppendPrefix(b, fieldnum.ResponseFence, p.sizeFence())
		b = protofield.AppendVarint(b, fieldnum.FenceEpoch, uint64(p.fence.Epoch))
		b = protofield.AppendVarint(b, fieldnum.FenceGeneration, uint64(p.fence.Generation))
	}
	b = protofield.AppendVarint(b, fieldnum.ResponseAccessGeneration, uint64(p.access))
	b = protofield.AppendVarint(b, fieldnum.ResponseOffset, uint64(p.offset))
	if p.message != "" {
		b = append(protofield.AppendPrefix(b, fieldnum.ResponseMessage, len(p.message)), p.message...)
	}
	for i := range p.runs {
		r := &p.runs[i]
		b = protofield.AppendPrefix(b, fieldnum.ResponseRuns, sizeRun(r))
		b = protofield.AppendVarint(b, fieldnum.RunOffset, uint64(r.Offset))
		b = protofield.AppendVarint(b, fieldnum.RunLength, uint64(r.Length))
		b = protofield.AppendVarint(b, fieldnum.RunAllocated, flag(r.Allocated))
	}
	f.Buf = b
}

// write writes a batch of responses, whose data must not change until the frame was sent.
func write(f *stream.Frame, responses []*response) {
	f.Buf = protofield.AppendVarint(f.Buf, fieldnum.ResponsesVersion, Version)
	for _, p := range responses {
		f.Buf = protofield.AppendPrefix(f.Buf, fieldnum.ResponsesResponses, p.size())
		p.appendTo(f)
	}
}
