package thirdparty

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/odx"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
)

// Medium is the medium of a logical unit as one initiator reaches it. Offsets and lengths are bytes, whole sectors of 512
// and within the capacity; a length is never zero. Methods return soon after ctx is done.
type Medium interface {
	Read(ctx context.Context, p []byte, off int64) error
	Write(ctx context.Context, p []byte, off int64) error
	// Zero makes the range read as zeroes and gives back what it can of it.
	Zero(ctx context.Context, off, length int64) error
	// Allocated tells whether the byte at off was written, and for how many bytes, at least one, the answer is the same.
	// What was not written reads as zeroes.
	Allocated(ctx context.Context, off, length int64) (allocated bool, run int64, err error)
}

// Unit is a logical unit that a command copies from or to, as its nexus sees it.
type Unit struct {
	ID     any // comparable; equal for one logical unit
	NAA    [16]byte
	Shift  uint   // log2 of the logical block length
	Blocks uint64 // capacity
	// Physical is log2 of the logical blocks per physical block.
	Physical byte
	Medium   Medium

	// Protected tells that it can not be written.
	Protected bool

	// Present tells whether the nexus still sees it, as it is described here.
	Present func() bool

	// Fence makes the writes to Medium whose context has ended be without effect. It does not block.
	Fence func()

	// Copies are the copies that write to it.
	Copies *Copies
}

func (u *Unit) offset(lba uint64) int64 { return int64(lba << u.Shift) }

// Find returns the logical unit of a NAA designator among those that the nexus sees, or nil.
type Find func(naa []byte) *Unit

// Failure is why a command failed.
type Failure struct {
	// Sense is what the initiator is told, unless Err is set.
	Sense sense.Data
	// Err is an error of the medium of the logical unit that got the command, or of the command's context.
	Err     error
	Writing bool // Err is of a write
}

// Request is one command to the copy manager.
type Request struct {
	Self    *Unit // the logical unit that got it
	Find    Find
	Results *Results
	Running *Running

	// ID is the list identifier in the CDB; the one of EXTENDED COPY is in its list.
	ID uint32
	// Owner is the initiator's name.
	Owner string

	// Explain returns the additional sense code and its qualifier for an error of a Medium, 0 when there is no better one
	// than THIRD PARTY DEVICE FAILURE.
	Explain func(error) uint16

	entry *entry
}

// End is called with the status that the command ended with and its sense data, which are copied; aborted tells that it
// ended without a status.
func (r *Request) End(status byte, senseData []byte, aborted bool) {
	if r.entry != nil {
		r.entry.end(status, senseData, aborted)
	}
}

// Sense codes of a command that can not begin.
const (
	senseInProgress   sense.Code = 0x050016 // OPERATION IN PROGRESS: its list identifier is in use
	senseInsufficient sense.Code = 0x055503 // INSUFFICIENT RESOURCES
)

// begin enters a command into the results of its nexus; listed tells whether r.ID is a list identifier.
func (m *Manager) begin(r *Request, k kind, listed bool) *Failure {
	if m == nil {
		return &Failure{Sense: sense.Data{Code: senseInsufficient}}
	}
	e, busy, full := r.Results.begin(k, r.ID, listed, r.Self.Shift)
	switch {
	case busy:
		return &Failure{Sense: sense.Data{Code: senseInProgress}}
	case full:
		return &Failure{Sense: sense.Data{Code: senseInsufficient}}
	}
	r.entry = e
	return nil
}

// bufferLength is the length of a copy's buffer, in bytes.
const bufferLength = odx.PieceLength

// Manager is what the copies of one gateway share. Its methods may be called from any goroutine. A nil one has no resources
// for anything.
type Manager struct {
	tokens  *odx.Table
	room    chan struct{}
	buffers sync.Pool
}

// New returns a manager under which at most copies copies run at a time; each has a buffer of 1 MiB. random is a
// cryptographic generator; now tells the time and never goes back.
func New(now func() time.Time, random io.Reader, copies int) *Manager {
	m := &Manager{tokens: odx.NewTable(now, random), room: make(chan struct{}, copies)}
	m.buffers.New = func() any {
		b := make([]byte, bufferLength)
		return &b
	}
	return m
}

// borrow waits for room to copy in.
func (m *Manager) borrow(ctx context.Context) (*[]byte, error) {
	select {
	case m.room <- struct{}{}:
		return m.buffers.Get().(*[]byte), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (m *Manager) giveBack(b *[]byte) {
	m.buffers.Put(b)
	<-m.room
}
