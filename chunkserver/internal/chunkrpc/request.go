package chunkrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// begin starts one request; its answer comes by session.answer, once. r and its data are borrowed until it returns.
func (se *session) begin(r *request, here bool) {
	g := se.s.groups.find(r.copyset)
	w := weight(r)
	if g == nil {
		se.answer(w, refuse(r.id, chunkv1.Status_STATUS_NO_SUCH_COPYSET))
		return
	}
	se.s.stats.count(r)
	switch r.op {
	case chunkv1.Op_OP_READ, chunkv1.Op_OP_ALLOCATION:
		se.read(g, r, w, here)
		return
	}
	if err := r.mutation(); err != nil {
		se.invalid(r, w, err)
		return
	}
	m := mutations.Get().(*mutation)
	*m = mutation{se: se, id: r.id, weight: w}
	if !partial(&r.command) {
		g.Propose(&r.command, m)
		return
	}
	select {
	case se.s.jobs <- &probe{m: m, g: g, c: r.own()}:
	default:
		m.Done(multiraft.Reply{Status: multiraft.Busy})
	}
}

// partial tells whether the command changes a part of a block, or depends on what is in one.
func partial(c *copyset.Command) bool {
	switch c.Op {
	case copyset.OpWrite, copyset.OpWriteZeroes, copyset.OpCompareAndWrite:
		return c.Op == copyset.OpCompareAndWrite || c.Offset%layout.BlockSize != 0 || c.Length%layout.BlockSize != 0
	}
	return false
}

// probe is a mutation that depends on what is in a block. The block is read before it is proposed, and repaired if need
// be: what can not be repaired is an error of this command, where at apply it would hold up the whole copyset.
type probe struct {
	m *mutation
	g group
	c *copyset.Command
}

func (p *probe) run(ctx context.Context) {
	for try := 0; p.g.Leading(); try++ {
		err := p.g.Probe(p.c.Chunk, p.c.Offset, p.c.Length, p.c.Op == copyset.OpCompareAndWrite)
		var damaged *blockstore.ChecksumError
		if !errors.As(err, &damaged) {
			break // good, or what Propose and apply will meet too
		}
		rctx, cancel := context.WithTimeout(ctx, repairTimeout)
		rerr := p.m.se.s.groups.repair(rctx, p.g, damaged)
		cancel()
		if rerr != nil && try >= triesMax {
			p.m.Done(multiraft.Reply{Status: multiraft.Damaged, Err: err})
			return
		}
	}
	p.g.Propose(p.c, p.m)
}

// errDamaged means that data does not match the checksums that came with it: it was damaged on its way.
var errDamaged = errors.New("the data does not match its CRC32C")

// invalid refuses a request. One that was damaged on its way is to be sent again.
func (se *session) invalid(r *request, weight int, err error) {
	p := refuse(r.id, chunkv1.Status_STATUS_INVALID)
	if errors.Is(err, errDamaged) {
		p.status = chunkv1.Status_STATUS_BUSY
		se.s.stats.Damaged.Add(1)
	}
	p.say(err)
	se.answer(weight, p)
}

// ops are the requests that become commands.
func op(o chunkv1.Op) (copyset.Op, bool) {
	switch o {
	case chunkv1.Op_OP_WRITE:
		return copyset.OpWrite, true
	case chunkv1.Op_OP_DISCARD:
		return copyset.OpDiscard, true
	case chunkv1.Op_OP_WRITE_ZEROES:
		return copyset.OpWriteZeroes, true
	case chunkv1.Op_OP_COMPARE_AND_WRITE:
		return copyset.OpCompareAndWrite, true
	case chunkv1.Op_OP_RAISE:
		return copyset.OpRaise, true
	case chunkv1.Op_OP_RAISE_ACCESS:
		return copyset.OpRaiseAccess, true
	case chunkv1.Op_OP_DELETE_VOLUME:
		return copyset.OpDeleteVolume, true
	}
	return 0, false
}

// mutation checks the request and completes its command, whose payload and checksums lie where the request's do.
func (r *request) mutation() error {
	o, ok := op(r.op)
	if !ok {
		return fmt.Errorf("op %d", r.op)
	}
	c := &r.command
	c.Op, c.Payload = o, r.data
	switch o {
	case copyset.OpWrite:
		c.CRCs = r.crcs
		if err := verify(c, r.data, c.CRCs); err != nil {
			return err
		}
	case copyset.OpCompareAndWrite:
		if err := halves(c, r.crcs); err != nil {
			return err
		}
	case copyset.OpRaise, copyset.OpRaiseAccess, copyset.OpDeleteVolume:
		c.Offset, c.Length, c.Seq, c.LowWater = 0, 0, 0, 0
	}
	if c.Length > copyset.WriteMax && o == copyset.OpWrite {
		return fmt.Errorf("write of %d bytes", c.Length)
	}
	return c.Validate()
}

// own returns a copy of the command that shares nothing with the received bytes.
func (r *request) own() *copyset.Command {
	c := r.command
	c.Payload, c.CRCs = bytes.Clone(c.Payload), slices.Clone(c.CRCs)
	return &c
}

// halves checks the data of a compare and write. Checksums come for the whole blocks of both halves, or of the half that
// is written, or not at all; those of the second half go on.
func halves(c *copyset.Command, crcs []uint32) error {
	n := int(c.Length)
	if len(c.Payload) != 2*n {
		return fmt.Errorf("compare and write of %d bytes with %d", n, len(c.Payload))
	}
	whole := copyset.WholeBlocks(c.Offset, c.Length)
	if whole > 0 && len(crcs) == 2*whole {
		if err := verify(c, c.Payload[:n], crcs[:whole]); err != nil {
			return err
		}
		crcs = crcs[whole:]
	}
	if len(crcs) == 0 {
		return nil
	}
	c.CRCs = crcs
	return verify(c, c.Payload[n:], crcs)
}

// verify compares the whole blocks of data, which goes to the command's offset, with their checksums.
func verify(c *copyset.Command, data []byte, crcs []uint32) error {
	if len(crcs) != copyset.WholeBlocks(c.Offset, c.Length) {
		return fmt.Errorf("%d checksums for %d whole blocks", len(crcs), copyset.WholeBlocks(c.Offset, c.Length))
	}
	skip := int(-c.Offset % layout.BlockSize)
	if len(crcs) == 0 {
		return nil
	}
	if end := skip + len(crcs)*layout.BlockSize; end > len(data) {
		return fmt.Errorf("%d bytes for %d checksums", len(data), len(crcs))
	}
	if bad := layout.VerifyBlocks(data[skip:skip+len(crcs)*layout.BlockSize], crcs); bad >= 0 {
		return fmt.Errorf("block %d: %w", bad, errDamaged)
	}
	return nil
}

// mutation waits for the outcome of a command.
type mutation struct {
	se     *session
	id     uint64
	weight int
}

var mutations = sync.Pool{New: func() any { return new(mutation) }}

// Done answers the request.
func (m *mutation) Done(r multiraft.Reply) {
	se, id, weight := m.se, m.id, m.weight
	*m = mutation{}
	mutations.Put(m) // Done comes once
	se.answer(weight, reply(id, &r))
}

// reply makes the response of a mutation, or of a read that has no data.
func reply(id uint64, r *multiraft.Reply) *response {
	p := acquire()
	p.id = id
	switch r.Status {
	case multiraft.Done:
		outcome(p, &r.Outcome)
	case multiraft.NotLeader:
		p.status, p.leader = chunkv1.Status_STATUS_NOT_LEADER, r.Leader
	case multiraft.NotReady, multiraft.Behind:
		p.status = chunkv1.Status_STATUS_NOT_READY
	case multiraft.Busy:
		p.status = chunkv1.Status_STATUS_BUSY
	case multiraft.NoSpace:
		p.status = chunkv1.Status_STATUS_NO_SPACE
	case multiraft.Damaged:
		p.status = chunkv1.Status_STATUS_CHECKSUM
	case multiraft.Invalid:
		p.status = chunkv1.Status_STATUS_INVALID
	default:
		p.status = chunkv1.Status_STATUS_IO
	}
	if r.Err != nil {
		p.say(r.Err)
	}
	return p
}

func outcome(p *response, o *copyset.Outcome) {
	switch o.Code {
	case copyset.OK:
		p.status = chunkv1.Status_STATUS_OK
	case copyset.StaleFence:
		p.status = chunkv1.Status_STATUS_STALE_FENCE
	case copyset.StaleAccess:
		p.status = chunkv1.Status_STATUS_STALE_ACCESS
	case copyset.Miscompare:
		p.status = chunkv1.Status_STATUS_MISCOMPARE
	case copyset.Forgotten:
		p.status = chunkv1.Status_STATUS_FORGOTTEN
	default:
		p.status = chunkv1.Status_STATUS_INVALID
	}
	p.fence, p.access, p.offset = o.Fence, o.Access, o.Offset
}

// read is a read or a question for the allocation, until it is answered.
type read struct {
	se     *session
	g      group
	access multiraft.Access
	chunk  layout.ChunkID
	off, n uint32
	id     uint64
	weight int
	alloc  bool
	tries  int
}

// read starts a read, here or on a reader.
func (se *session) read(g group, p *request, weight int, here bool) {
	c := &p.command
	r := reads.Get().(*read)
	*r = read{
		se: se, g: g, id: p.id, weight: weight, off: c.Offset, n: c.Length, alloc: p.op == chunkv1.Op_OP_ALLOCATION,
		chunk: c.Chunk, access: multiraft.Access{Initiator: c.Initiator, Access: c.Access, Fence: c.Fence},
	}
	err := copyset.CheckRange(r.off, r.n)
	switch {
	case err == nil && !r.alloc && r.n > ReadMax:
		err = fmt.Errorf("read of %d bytes", r.n)
	case err == nil && (r.access.Fence.Epoch == 0 || r.access.Initiator == 0 || r.chunk.Volume == 0 || r.access.Access == layout.DeletedAccess):
		err = errors.New("no volume, fence or access generation")
	}
	if err != nil {
		se.invalid(p, weight, err)
		return
	}
	if here {
		r.run(se.ctx)
		return
	}
	r.queue()
}

var reads = sync.Pool{New: func() any { return new(read) }}

// queue hands the read to a reader.
func (r *read) queue() {
	select {
	case r.se.s.jobs <- r:
	default:
		r.finish(reply(r.id, &multiraft.Reply{Status: multiraft.Busy}))
	}
}

func (r *read) finish(p *response) {
	se, weight := r.se, r.weight
	*r = read{}
	reads.Put(r)
	se.answer(weight, p)
}

// run reads, and has raised or repaired what stands in the way.
func (r *read) run(ctx context.Context) {
	for {
		p, res := r.once()
		r.tries++
		switch {
		case res.Status == multiraft.Behind && r.tries < triesMax:
			release(p)
			r.raise()
			return
		case res.Status == multiraft.Damaged && r.tries < triesMax && r.repair(ctx, res.Err):
			release(p)
			continue
		}
		r.finish(p)
		return
	}
}

// once reads once.
func (r *read) once() (*response, multiraft.Reply) {
	p := acquire()
	var res multiraft.Reply
	if r.alloc {
		p.runs, res = r.g.Allocated(r.chunk, r.off, r.n, nil, &r.access)
	} else {
		p.reserve(int(r.n))
		p.crcs, res = r.g.Read(r.chunk, r.off, p.data, p.crcs[:0], &r.access)
	}
	if res.Status == multiraft.Done && res.Outcome.Code == copyset.OK {
		p.id, p.status = r.id, chunkv1.Status_STATUS_OK
		return p, res
	}
	release(p)
	return reply(r.id, &res), res
}

// raise has the read's fence raised; the read goes on when it is.
func (r *read) raise() {
	r.g.Propose(&copyset.Command{
		Op: copyset.OpRaise, Chunk: layout.ChunkID{Volume: r.chunk.Volume},
		Initiator: r.access.Initiator, Fence: r.access.Fence, Access: r.access.Access,
	}, r)
}

// Done goes on after a raise.
func (r *read) Done(res multiraft.Reply) {
	if res.Status == multiraft.Done && res.Outcome.Code == copyset.OK {
		r.queue()
		return
	}
	r.finish(reply(r.id, &res))
}

// repair has a damaged block replaced.
func (r *read) repair(ctx context.Context, err error) bool {
	var damaged *blockstore.ChecksumError
	if !errors.As(err, &damaged) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	return r.se.s.groups.repair(ctx, r.g, damaged) == nil
}
