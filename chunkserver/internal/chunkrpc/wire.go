package chunkrpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The field numbers of api/chunk/v1.
const (
	requestsVersion  = 1
	requestsRequests = 2
	requestsCluster  = 3

	requestID        = 1
	requestOp        = 2
	requestCopyset   = 3
	requestVolume    = 4
	requestChunk     = 5
	requestOffset    = 6
	requestLength    = 7
	requestInitiator = 8
	requestFence     = 9
	requestAccess    = 10
	requestSeq       = 11
	requestLowWater  = 12
	requestData      = 13
	requestCRCs      = 14

	fenceEpoch      = 1
	fenceGeneration = 2

	responsesVersion   = 1
	responsesResponses = 2

	responseID      = 1
	responseStatus  = 2
	responseData    = 3
	responseCRCs    = 4
	responseLeader  = 5
	responseFence   = 6
	responseAccess  = 7
	responseOffset  = 8
	responseMessage = 9
	responseRuns    = 10

	runOffset    = 1
	runLength    = 2
	runAllocated = 3
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
	cluster []byte // lies in the received bytes
	reqs    []request
	crcs    []uint32
}

var errBatch = fmt.Errorf("more than %d requests in a batch", inflightMax)

// parse parses a batch, which lies in b from now on.
func (t *batch) parse(b []byte) error {
	t.reset()
	var f frame.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Is(requestsVersion, protowire.VarintType):
			t.version = uint32(f.Number)
		case f.Is(requestsCluster, protowire.BytesType):
			t.cluster = f.Bytes
		case f.Is(requestsRequests, protowire.BytesType):
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
	var f frame.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Type == protowire.VarintType:
			r.number(f.Num, f.Number)
		case f.Is(requestData, protowire.BytesType):
			r.data = f.Bytes
		case f.Is(requestFence, protowire.BytesType):
			if err := r.fence(f.Bytes); err != nil {
				return err
			}
		case f.Is(requestCRCs, protowire.BytesType):
			if len(f.Bytes)%4 != 0 {
				return fmt.Errorf("%d bytes of checksums", len(f.Bytes))
			}
			for p := f.Bytes; len(p) > 0; p = p[4:] {
				t.crcs = append(t.crcs, binary.LittleEndian.Uint32(p))
			}
		case f.Is(requestCRCs, protowire.Fixed32Type): // not packed
			t.crcs = append(t.crcs, uint32(f.Number))
		}
	}
	r.crcs = t.crcs[first:len(t.crcs):len(t.crcs)]
	return nil
}

func (r *request) number(num protowire.Number, v uint64) {
	c := &r.command
	switch num {
	case requestID:
		r.id = v
	case requestOp:
		r.op = chunkv1.Op(int32(v))
	case requestCopyset:
		r.copyset = layout.CopysetID(v)
	case requestVolume:
		c.Chunk.Volume = layout.VolumeID(v)
	case requestChunk:
		c.Chunk.Index = uint32(v)
	case requestOffset:
		c.Offset = uint32(v)
	case requestLength:
		c.Length = uint32(v)
	case requestInitiator:
		c.Initiator = layout.InitiatorID(v)
	case requestAccess:
		c.Access = layout.AccessGeneration(v)
	case requestSeq:
		c.Seq = layout.Seq(v)
	case requestLowWater:
		c.LowWater = layout.Seq(v)
	}
}

func (r *request) fence(b []byte) error {
	var f frame.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Is(fenceEpoch, protowire.VarintType):
			r.command.Fence.Epoch = layout.Epoch(f.Number)
		case f.Is(fenceGeneration, protowire.VarintType):
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

// say sets the message. A message of protobuf is valid UTF-8, which a name in an error need not be.
func (p *response) say(err error) { p.message = strings.ToValidUTF8(err.Error(), "\uFFFD") }

func (p *response) sizeFence() int {
	return frame.SizeVarint(uint64(p.fence.Epoch)) + frame.SizeVarint(uint64(p.fence.Generation))
}

func sizeRun(r *blockstore.Run) int {
	return frame.SizeVarint(uint64(r.Offset)) + frame.SizeVarint(uint64(r.Length)) + frame.SizeVarint(flag(r.Allocated))
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// size returns the size of the response's content.
func (p *response) size() int {
	n := frame.SizeVarint(p.id) + frame.SizeVarint(uint64(p.status)) + frame.SizeVarint(uint64(p.leader)) +
		frame.SizeVarint(uint64(p.access)) + frame.SizeVarint(uint64(p.offset))
	if len(p.data) > 0 {
		n += frame.SizeBytes(len(p.data))
	}
	if len(p.crcs) > 0 {
		n += frame.SizeBytes(4 * len(p.crcs))
	}
	if p.fence != (layout.Fence{}) {
		n += frame.SizeBytes(p.sizeFence())
	}
	if p.message != "" {
		n += frame.SizeBytes(len(p.message))
	}
	for i := range p.runs {
		n += frame.SizeBytes(sizeRun(&p.runs[i]))
	}
	return n
}

// appendTo appends the response's content.
func (p *response) appendTo(b []byte) []byte {
	b = frame.AppendVarint(b, responseID, p.id)
	b = frame.AppendVarint(b, responseStatus, uint64(p.status))
	if len(p.data) > 0 {
		b = append(frame.AppendPrefix(b, responseData, len(p.data)), p.data...)
	}
	b = frame.AppendFixed32s(b, responseCRCs, p.crcs)
	b = frame.AppendVarint(b, responseLeader, uint64(p.leader))
	if p.fence != (layout.Fence{}) {
		b = frame.AppendPrefix(b, responseFence, p.sizeFence())
		b = frame.AppendVarint(b, fenceEpoch, uint64(p.fence.Epoch))
		b = frame.AppendVarint(b, fenceGeneration, uint64(p.fence.Generation))
	}
	b = frame.AppendVarint(b, responseAccess, uint64(p.access))
	b = frame.AppendVarint(b, responseOffset, uint64(p.offset))
	if p.message != "" {
		b = append(frame.AppendPrefix(b, responseMessage, len(p.message)), p.message...)
	}
	for i := range p.runs {
		r := &p.runs[i]
		b = frame.AppendPrefix(b, responseRuns, sizeRun(r))
		b = frame.AppendVarint(b, runOffset, uint64(r.Offset))
		b = frame.AppendVarint(b, runLength, uint64(r.Length))
		b = frame.AppendVarint(b, runAllocated, flag(r.Allocated))
	}
	return b
}

// outgoing is a batch of responses. The sizes of its responses are computed once.
type outgoing struct {
	responses []*response
	sizes     []int
	size      int
}

// set replaces the responses, which do not change until the batch is sent.
func (o *outgoing) set(responses []*response) {
	o.responses, o.sizes, o.size = responses, o.sizes[:0], frame.SizeVarint(Version)
	for _, p := range responses {
		n := p.size()
		o.sizes = append(o.sizes, n)
		o.size += frame.SizeBytes(n)
	}
}

func (o *outgoing) Size() int { return o.size }

func (o *outgoing) AppendTo(b []byte) []byte {
	b = frame.AppendVarint(b, responsesVersion, Version)
	for i, p := range o.responses {
		b = p.appendTo(frame.AppendPrefix(b, responsesResponses, o.sizes[i]))
	}
	return b
}

func (o *outgoing) Parse([]byte) error {
	return errors.New("chunkrpc: a batch of responses is only sent")
}
