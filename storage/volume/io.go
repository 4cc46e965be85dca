package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// Run is a run of bytes of the volume that is allocated or not.
type Run struct {
	Offset, Length int64
	Allocated      bool
}

// piece is one extent of an operation on its way.
type piece struct {
	attempt chunkclient.Attempt
	request chunkclient.Request
	// tenancy is the one that it was sent in last, 0 while it has to be sent: for the first time, or because it was refused.
	tenancy tenancy
	crcs    []uint32
	// cut is how much of a widened read precedes what was asked for, in bytes; buf is the widened read.
	cut uint32
	buf []byte
	dst []byte
}

// operation is one call of a Handle's method; it is reused.
type operation struct {
	// tenancy is the last one that it was proven for.
	tenancy tenancy
	extents []layout.Extent
	pieces  []piece
}

var operations = sync.Pool{New: func() any { return &operation{} }}

// ReadAt fills p from off. Both are multiples of 512 bytes. It is linearizable for each block, not for all together.
func (h *Handle) ReadAt(ctx context.Context, p []byte, off int64) error {
	_, err := h.run(ctx, chunkclient.Read, p, off, int64(len(p)))
	return err
}

// WriteAt writes p at off, multiples of 512 bytes. When it returns nil the data is on stable storage at a quorum of
// replicas; a write within one chunk is never partly there.
func (h *Handle) WriteAt(ctx context.Context, p []byte, off int64) error {
	_, err := h.run(ctx, chunkclient.Write, p, off, int64(len(p)))
	return err
}

// Discard gives the whole blocks of the range back; they read as zeroes. Partial blocks at its ends keep their data.
func (h *Handle) Discard(ctx context.Context, off, length int64) error {
	_, err := h.run(ctx, chunkclient.Discard, nil, off, length)
	return err
}

// WriteZeroes makes the range read as zeroes and gives its whole blocks back.
func (h *Handle) WriteZeroes(ctx context.Context, off, length int64) error {
	_, err := h.run(ctx, chunkclient.WriteZeroes, nil, off, length)
	return err
}

// CompareAndWrite writes write at off if the medium holds compare, atomically. Both have one length, and lie in one
// chunk. A *MiscompareError says that the medium holds something else.
func (h *Handle) CompareAndWrite(ctx context.Context, compare, write []byte, off int64) error {
	both := make([]byte, 0, len(compare)+len(write))
	both = append(append(both, compare...), write...)
	_, err := h.run(ctx, chunkclient.CompareAndWrite, both, off, int64(len(compare)))
	return err
}

// Allocation returns the runs of the range in order, allocated or not; neighbours differ.
func (h *Handle) Allocation(ctx context.Context, off, length int64) ([]Run, error) {
	return h.run(ctx, chunkclient.Allocation, nil, off, length)
}

// run does one operation: it starts all its pieces, then waits for each.
func (h *Handle) run(ctx context.Context, op chunkclient.Op, data []byte, off, length int64) ([]Run, error) {
	if length == 0 {
		return nil, nil
	}
	if off%sectorSize != 0 || length%sectorSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes at %d are not whole sectors", ErrOutOfRange, length, off)
	}
	o := operations.Get().(*operation)
	defer o.release()
	var err error
	if o.tenancy, err = h.enter(ctx); err != nil {
		return nil, err
	}
	charge := min(int64(len(data)), h.client.most)
	if err := h.client.bytes.Acquire(ctx, charge); err != nil {
		return nil, context.Cause(ctx)
	}
	defer h.client.bytes.Release(charge)
	h.mu.Lock()
	placement := h.mu.placement
	h.mu.Unlock()
	var ok bool
	if o.extents, ok = placement.Split(o.extents[:0], off, length); !ok {
		return nil, fmt.Errorf("%w: %d bytes at %d of %d", ErrOutOfRange, length, off, placement.Size)
	}
	if op == chunkclient.CompareAndWrite && len(o.extents) != 1 {
		return nil, fmt.Errorf("%w: a compare and write goes across chunks", ErrOutOfRange)
	}
	runs, err := h.runPieces(ctx, o, op, data, off)
	if err == nil {
		h.progress(o.tenancy)
	}
	return runs, err
}

// piecesAtOnce bounds how many pieces of one operation are on their way; a large discard has many.
const piecesAtOnce = 32

func (h *Handle) runPieces(ctx context.Context, o *operation, op chunkclient.Op, data []byte, off int64) ([]Run, error) {
	var runs []Run
	var firstErr error
	if cap(o.pieces) < min(len(o.extents), piecesAtOnce) {
		o.pieces = make([]piece, piecesAtOnce)
	}
	for at := 0; at < len(o.extents) && firstErr == nil; at += piecesAtOnce {
		extents := o.extents[at:min(at+piecesAtOnce, len(o.extents))]
		pieces := o.pieces[:len(extents)]
		started := 0
		for i, e := range extents {
			var part []byte
			switch {
			case op == chunkclient.CompareAndWrite:
				part = data
			case data != nil:
				part, data = data[:e.Length], data[e.Length:]
			}
			if firstErr = h.begin(ctx, o, &pieces[i], op, e, part); firstErr != nil {
				break
			}
			started++
		}
		for i := range pieces[:started] {
			resp, err := h.finish(ctx, o, &pieces[i])
			if err != nil && firstErr == nil {
				firstErr = err
			}
			runs = appendRuns(runs, resp.Runs, off, extents[i])
			off += int64(extents[i].Length)
		}
	}
	return runs, firstErr
}

// begin sends one piece, unless the tenancy that the operation was proven for is over; then finish does.
func (h *Handle) begin(ctx context.Context, o *operation, p *piece, op chunkclient.Op, e layout.Extent, part []byte) error {
	p.dst, p.buf, p.cut, p.tenancy = nil, nil, 0, 0
	p.request = chunkclient.Request{Op: op, Copyset: e.Copyset, Chunk: e.Chunk, Offset: e.Offset, Length: e.Length}
	switch op {
	case chunkclient.Read:
		p.dst, p.buf = part, part
		// Whole blocks are read, so that their checksums can be verified here.
		p.cut = e.Offset % layout.BlockSize
		end := (e.Offset + e.Length + layout.BlockSize - 1) / layout.BlockSize * layout.BlockSize
		p.request.Offset -= p.cut
		p.request.Length = end - p.request.Offset
		if p.request.Length != e.Length {
			p.buf = make([]byte, p.request.Length)
		}
	case chunkclient.Write:
		skip := (layout.BlockSize - int(e.Offset%layout.BlockSize)) % layout.BlockSize
		p.crcs = layout.AppendCRCs(p.crcs[:0], part, skip)
		p.request.Data, p.request.CRCs = part, p.crcs
	case chunkclient.CompareAndWrite:
		p.request.Data = part
	}
	if op != chunkclient.Read && op != chunkclient.Allocation {
		seq, err := h.take(ctx)
		if err != nil {
			return err
		}
		p.request.Seq = seq
	}
	if err := h.send(ctx, o, p); err != nil && !errors.Is(err, errNotProven) {
		h.settlePiece(p)
		return err
	}
	return nil
}

// send sends a piece of which no request is on its way, in the tenancy that the operation was proven for.
func (h *Handle) send(ctx context.Context, o *operation, p *piece) error {
	if err := h.stamp(ctx, o.tenancy, &p.request); err != nil {
		return err
	}
	p.tenancy = o.tenancy
	h.client.doer.Begin(&p.attempt, &p.request, p.buf)
	return nil
}

// stamp puts the handle's present fencing numbers into a request. An operation that was cancelled before Fence was called
// gets none, so Fence reaches all of it. One that was not proven in the present tenancy gets errNotProven.
func (h *Handle) stamp(ctx context.Context, t tenancy, r *chunkclient.Request) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.mu.dead != nil:
		return h.mu.dead
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !h.usableLocked() || t != h.mu.tenancy:
		return errNotProven
	}
	r.Initiator, r.Fence = h.mu.id, h.mu.fence
	h.stampAccessLocked(ctx, r)
	h.mu.pace.send()
	return nil
}

func (h *Handle) stampAccessLocked(ctx context.Context, r *chunkclient.Request) {
	r.AccessGeneration, r.LowWater = h.mu.access, h.mu.window.low
	if bound := layout.AccessGeneration(reservation.AccessOf(ctx)); bound != 0 && bound < r.AccessGeneration {
		r.AccessGeneration = bound
	}
}

// repeat prepares a request that has to be sent again. One that changes something stays in its tenancy, also
// when that is over: only there its number tells whether it was done. What reads is sent anew in the next one.
func (h *Handle) repeat(ctx context.Context, o *operation, p *piece, r *chunkclient.Request) error {
	if r.Seq == 0 {
		return h.stamp(ctx, p.tenancy, r)
	}
	h.mu.Lock()
	hung := h.usableLocked() && p.tenancy != h.mu.tenancy && r.Fence.Epoch == h.mu.fence.Epoch
	h.mu.Unlock()
	if hung {
		var err error
		if o.tenancy, err = h.enter(ctx); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if hung && o.tenancy == h.mu.tenancy && r.Fence.Epoch == h.mu.fence.Epoch {
		p.tenancy = o.tenancy
	}
	switch {
	case h.mu.dead != nil:
		return h.mu.dead
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.tenancy == h.mu.tenancy:
		r.Fence = h.mu.fence
	}
	h.stampAccessLocked(ctx, r)
	return nil
}

func (h *Handle) settlePiece(p *piece) {
	if p.request.Seq != 0 {
		h.settle(p.request.Seq)
	}
}

// progress notes that something was done in a tenancy, for pace.
func (h *Handle) progress(t tenancy) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t == h.mu.tenancy {
		h.mu.pace.done = true
	}
}

// finish waits for one piece and judges its answer. It sends the piece again where that is right: under newer fencing
// numbers, or in another tenancy, after the operation was proven in it.
func (h *Handle) finish(ctx context.Context, o *operation, p *piece) (chunkclient.Response, error) {
	defer h.settlePiece(p)
	again := func(r *chunkclient.Request) error { return h.repeat(ctx, o, p, r) }
	for {
		if p.tenancy == 0 {
			err := h.send(ctx, o, p)
			if errors.Is(err, errNotProven) {
				o.tenancy, err = h.enter(ctx)
			}
			if err != nil {
				return chunkclient.Response{}, err
			}
			continue
		}
		resp, err := p.attempt.End(ctx, h.lost, again)
		switch {
		case errors.Is(err, errNotProven):
		case err != nil:
			return resp, h.cause(err)
		default:
			if repeat, err := h.judge(ctx, p, &resp); !repeat {
				return resp, err
			}
		}
		p.tenancy = 0
	}
}

// cause prefers the reason why the handle died over what followed from it.
func (h *Handle) cause(err error) error {
	if dead := h.Err(); dead != nil {
		return dead
	}
	return err
}

// judge turns an answer into the piece's outcome, or says that it has to be asked again.
func (h *Handle) judge(ctx context.Context, p *piece, resp *chunkclient.Response) (again bool, err error) {
	switch resp.Status {
	case chunkclient.OK:
		if p.request.Op == chunkclient.Read && len(p.buf) != len(p.dst) {
			copy(p.dst, p.buf[p.cut:])
		}
		return false, nil
	case chunkclient.StaleFence:
		return h.outrun(ctx, p, resp.Fence)
	case chunkclient.StaleAccess:
		return h.awaitAccess(ctx, resp.AccessGeneration)
	case chunkclient.Miscompare:
		return false, &MiscompareError{Offset: int(resp.Offset)}
	case chunkclient.NoSpace:
		return false, ErrNoSpace
	case chunkclient.Checksum:
		return false, ErrMedium
	}
	return false, fmt.Errorf("volume: copyset %d refused (status %d): %s", p.request.Copyset, resp.Status, resp.Message)
}

// outrun handles a refusal for a stale fence. One for a newer generation of the same epoch, which was raised after the
// request had been stamped, is for all requests of the piece: the copyset knows the outcome of what was done in its epoch.
// With a newer epoch the copyset has forgotten the outcomes of ours, so a piece that was sent before and got no answer to
// that may have been done.
func (h *Handle) outrun(ctx context.Context, p *piece, seen layout.Fence) (again bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.overtakeLocked(&p.request, seen.Epoch)
	switch {
	case h.mu.dead != nil:
		return false, h.mu.dead
	case seen.Epoch > p.request.Fence.Epoch && p.request.Seq != 0 && p.attempt.Open():
		return false, ErrStaleEpoch
	case p.tenancy == h.mu.tenancy && seen.Epoch == h.mu.fence.Epoch && seen.Generation > h.mu.fence.Generation:
		return false, fmt.Errorf("volume: a copyset has seen fence %v, ours is %v: two users of one epoch", seen, h.mu.fence)
	}
	return ctx.Err() == nil, context.Cause(ctx)
}

// awaitAccess handles a refusal for an older access generation. An operation that is bound to one by its context ends, to be
// judged again. Any other waits until the caller has judged the initiator's rights under the newer one.
func (h *Handle) awaitAccess(ctx context.Context, seen layout.AccessGeneration) (again bool, err error) {
	if seen == layout.DeletedAccess {
		h.Revoke(ErrAccessRevoked)
		return false, ErrAccessRevoked
	}
	bound := reservation.AccessOf(ctx) != 0
	for {
		h.mu.Lock()
		access, changed, dead := h.mu.access, h.mu.accessChanged, h.mu.dead
		h.mu.Unlock()
		switch {
		case dead != nil:
			return false, dead
		case bound:
			return false, ErrAccessChanged
		case access >= seen:
			return true, nil
		}
		select {
		case <-changed:
		case <-h.lost:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// appendRuns appends the runs of one extent, which starts at byte off of the volume, joining equal neighbours.
func appendRuns(dst []Run, runs []chunkclient.Run, off int64, e layout.Extent) []Run {
	for _, r := range runs {
		at := off + int64(r.Offset) - int64(e.Offset)
		if n := len(dst); n > 0 && dst[n-1].Allocated == r.Allocated && dst[n-1].Offset+dst[n-1].Length == at {
			dst[n-1].Length += int64(r.Length)
			continue
		}
		dst = append(dst, Run{Offset: at, Length: int64(r.Length), Allocated: r.Allocated})
	}
	return dst
}

func (o *operation) release() {
	for i := range o.pieces {
		o.pieces[i].dst, o.pieces[i].buf = nil, nil
		o.pieces[i].request.Data = nil
	}
	operations.Put(o)
}
