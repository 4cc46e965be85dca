package chunkclient

import (
	"fmt"
	"sync"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// requests holds messages with the buffers of their last use. What Start copies lives in them until the message is sent.
var requests = sync.Pool{New: func() any { return &chunkv1.Request{Fence: &chunkv1.Fence{}} }}

// keepData is the largest buffer that a message keeps for its next use, in bytes.
const keepData = 1 << 20

func toProto(r *Request) *chunkv1.Request {
	p := requests.Get().(*chunkv1.Request)
	p.Op = chunkv1.Op(r.Op)
	p.Copyset = uint64(r.Copyset)
	p.Volume, p.Chunk = uint64(r.Chunk.Volume), r.Chunk.Index
	p.Offset, p.Length = r.Offset, r.Length
	p.Initiator = uint64(r.Initiator)
	p.Fence.Epoch, p.Fence.Generation = uint64(r.Fence.Epoch), uint64(r.Fence.Generation)
	p.AccessGeneration = uint64(r.AccessGeneration)
	p.Seq, p.LowWater = uint64(r.Seq), uint64(r.LowWater)
	p.Data = append(p.Data[:0], r.Data...)
	p.Crcs = append(p.Crcs[:0], r.CRCs...)
	return p
}

func releaseRequest(p *chunkv1.Request) {
	if cap(p.Data) > keepData {
		p.Data = nil
	}
	requests.Put(p)
}

// fromProto fills the call from its answer. A read that answers other than it was asked is an error of the server.
func fromProto(c *Call, p *chunkv1.Response) {
	c.Response = Response{
		Status:           Status(p.GetStatus()),
		Leader:           layout.ChunkserverID(p.GetLeader()),
		Fence:            layout.Fence{Epoch: layout.Epoch(p.GetFence().GetEpoch()), Generation: layout.Generation(p.GetFence().GetGeneration())},
		AccessGeneration: layout.AccessGeneration(p.GetAccessGeneration()),
		Offset:           p.GetOffset(),
		Message:          p.GetMessage(),
	}
	for _, r := range p.GetRuns() {
		c.Response.Runs = append(c.Response.Runs, Run{r.GetOffset(), r.GetLength(), r.GetAllocated()})
	}
	if c.Request.Op != Read || c.Response.Status != OK {
		return
	}
	if len(p.GetData()) != len(c.Dst) {
		c.Err = fmt.Errorf("chunkclient: asked for %d bytes, got %d", len(c.Dst), len(p.GetData()))
		return
	}
	if bad := layout.VerifyBlocks(p.GetData(), p.GetCrcs()); bad >= 0 {
		c.Err = fmt.Errorf("chunkclient: block %d of the answer does not match its CRC32C", bad)
		return
	}
	copy(c.Dst, p.GetData())
}
