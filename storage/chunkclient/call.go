// Package chunkclient asks the leaders of copysets. It keeps one connection per chunkserver, on which requests of all
// copysets travel in batches, and remembers who leads which copyset.
//
//	Router.Do ── leader cache ──► link to chunkserver 3 ══ one stream, batches ══► api/chunk/v1
//	    ▲                                                                             │
//	    └────────── status: done, or "not leader, ask 5", or try again ◄──────────────┘
//
// Requests are encoded by the one who starts them, at the end of the batch that waits for the stream, and answers are
// read where the stream received them (wire.go, package protofield): on the wire is what generated code would have written.
// A request that is alone is written by who starts it; else a link sends when those who run have started what they have to
// start, so a batch has many requests when many are started.
//
// A request is repeated until it has an answer that repeating can not change, or its context ends. Repeating is safe:
// a mutation carries a sequence number by which the copyset recognises it.
package chunkclient

import (
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Op is what a request asks for.
type Op uint8

// The operations; api/chunk/v1 documents them.
const (
	Read Op = iota + 1
	Write
	Discard
	WriteZeroes
	CompareAndWrite
	Allocation
	Raise
	RaiseAccess
	DeleteVolume
)

// Request is one operation within one chunk.
type Request struct {
	Op               Op
	Copyset          layout.CopysetID
	Chunk            layout.ChunkID
	Offset, Length   uint32
	Initiator        layout.InitiatorID
	Fence            layout.Fence
	AccessGeneration layout.AccessGeneration
	// Seq is 0 for what changes nothing.
	Seq      layout.Seq
	LowWater layout.Seq
	// Data is borrowed until Start, End or Do returns.
	Data []byte
	// CRCs are the CRC32C of each whole block of Data, borrowed like Data.
	CRCs []uint32
}

// Status is the outcome of a request.
type Status uint8

// The outcomes; api/chunk/v1 documents them.
const (
	OK Status = iota + 1
	NotLeader
	NoSuchCopyset
	StaleFence
	StaleAccess
	Miscompare
	NoSpace
	Checksum
	Busy
	Forgotten
	Invalid
	NotReady
	Version
	IO
)

// Run is a run of bytes of a chunk that is allocated or not.
type Run struct {
	Offset, Length uint32
	Allocated      bool
}

// Response is the answer to a Request.
type Response struct {
	Status           Status
	Leader           layout.ChunkserverID
	Fence            layout.Fence
	AccessGeneration layout.AccessGeneration
	// Offset is where a compare found the first different byte.
	Offset  uint32
	Message string
	Runs    []Run
}

// Call is one request on its way to one chunkserver.
type Call struct {
	Request Request
	// Dst takes the data of a read; the link writes to it until the call is done or forgotten.
	Dst      []byte
	Response Response
	// Err is set when there is no answer: the link broke, and whether the request took effect is not known.
	Err error

	done chan struct{}
	// timer bounds the wait for done; nil before the first wait, and stopped between waits.
	timer *time.Timer
	id    uint64
	mu    struct {
		sync.Mutex
		// over: finished or forgotten; nobody touches Dst any more.
		over bool
	}
}

var calls = sync.Pool{New: func() any { return &Call{done: make(chan struct{}, 1)} }}

// NewCall returns an empty call.
func NewCall() *Call { return calls.Get().(*Call) }

// Release gives c back. It must be done, or never started; a call that was forgotten is left to the collector.
func (c *Call) Release() {
	*c = Call{done: c.done, timer: c.timer}
	calls.Put(c)
}

// Done tells, once, that Response or Err is set.
func (c *Call) Done() <-chan struct{} { return c.done }

// within returns a channel that tells when d has passed. c.timer has to be stopped after it.
func (c *Call) within(d time.Duration) <-chan time.Time {
	if c.timer == nil {
		c.timer = time.NewTimer(d)
	} else {
		c.timer.Reset(d)
	}
	return c.timer.C
}

// finish ends the call unless it is over already. fill runs while Dst still belongs to the call.
// The caller may reuse c from the moment that Done tells, so that comes last.
func (c *Call) finish(fill func(c *Call)) {
	c.mu.Lock()
	over := c.mu.over
	if !over {
		fill(c)
		c.mu.over = true
	}
	c.mu.Unlock()
	if !over {
		c.done <- struct{}{}
	}
}

// Finish ends the call with an answer, whose data it copies to Dst, or with err. It does nothing when the call is over.
func (c *Call) Finish(data []byte, resp Response, err error) {
	c.finish(func(c *Call) {
		c.Response, c.Err = resp, err
		copy(c.Dst, data)
	})
}

// Forget ends the caller's interest: when it returns true the call's buffers are not touched any more and Done will
// not tell; when it returns false the call had finished.
func (c *Call) Forget() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.over {
		return false
	}
	c.mu.over = true
	return true
}

// Link is the way to one chunkserver.
type Link interface {
	// Start sends the call's request; it does not block. The call ends by Done or Forget.
	Start(c *Call)
	// Close ends all calls with ErrClosed.
	Close()
}
