// Package volume is the client of one volume for one initiator: it splits I/O at chunk borders, computes the blocks'
// checksums, routes to the copysets' leaders, repeats what got no answer, and carries the fencing numbers.
//
//	Handle.WriteAt ─ split ─► extent ─ number (Seq), fence, CRC32C ─► chunkclient ─► copyset leader
//	                    └───► extent ─ …
//
// Fencing. A Handle lives through tenancies, each of which is one epoch of its (volume, initiator). The first operation
// asks the Attacher for an epoch. When a copyset answers that it has seen a newer one, another gateway has the initiator's
// path, and an operation that is still wanted takes it back:
//
//	no epoch ──first──► tenancy ──a copyset has seen a newer epoch──► overtaken ──pause, Attach──► next tenancy …
//	                     ▲  └──nobody uses the handle──► in doubt ──Attach: still the last one, or not──┐
//	                     └────────────────────────────────────────────────────────────────────────────┘
//
// A tenancy also ends when the process hung (Watch): the next one has the same epoch.
//
// An operation is sent in a tenancy only after its initiator has shown that it wanted it when that epoch was there (Proof).
// Of an operation that meets the end of a tenancy only those pieces are sent in the next one that provably had no effect
// in the one before: those that were not sent, and those of which every request was refused. What was answered is done, and a
// piece that may have been done ends its operation with ErrStaleEpoch. What reads may be repeated in any case.
//
// Below the epoch the Handle raises its generation itself (Fence): operations that are still wanted are repeated under the
// new one, under their old sequence numbers, so they take effect once; those that were cancelled are refused by every
// copyset that has seen the new generation.
//
// Exactness. Each mutation has a number of its own; a copyset remembers the outcomes of those above the low-water mark,
// the lowest number that is not settled here. At most windowSize numbers are unsettled. Numbers go on over the tenancies.
package volume

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

var (
	// ErrStaleEpoch ends an operation of which a part was on its way when the initiator's path moved to another gateway, and
	// may have been done before; and each one of a handle without a proof from then on.
	ErrStaleEpoch = errors.New("volume: the initiator's path moved to another gateway")
	// ErrAccessRevoked ends every command of a handle after Revoke.
	ErrAccessRevoked = errors.New("volume: access was taken away")
	// ErrAccessChanged ends a command that was judged by reservations which may have changed. It changed and read nothing
	// more; whoever sent it judges it again.
	ErrAccessChanged = errors.New("volume: the volume's reservations have changed")
	// ErrNoSpace says that the disks of a copyset are full.
	ErrNoSpace = errors.New("volume: no space left on the disks that hold this part of the volume")
	// ErrMedium says that a block is damaged on all its replicas.
	ErrMedium = errors.New("volume: a block is damaged on all its replicas")
	// ErrOutOfRange says that the range does not lie within the volume.
	ErrOutOfRange = errors.New("volume: out of range")
)

// MiscompareError is the outcome of CompareAndWrite when the medium holds other data.
type MiscompareError struct {
	// Offset is the first byte of the compared data that differs.
	Offset int
}

func (e *MiscompareError) Error() string {
	return fmt.Sprintf("volume: miscompare at byte %d", e.Offset)
}

// Doer is the part of chunkclient.Router that a handle uses.
type Doer interface {
	Begin(a *chunkclient.Attempt, req *chunkclient.Request, dst []byte)
}

// sectorSize is the smallest unit of I/O, in bytes.
const sectorSize = 512

// Client opens handles. All of them share the bound on bytes in flight.
type Client struct {
	doer     Doer
	attacher Attacher
	moved    func(Move)
	hangs    hangs
	bytes    *semaphore.Weighted
	most     int64
}

// New returns a client; inFlight bounds the bytes of data on their way, at least 1. moved, if it is not nil, is told of each
// move by the operation that asked for the epoch.
func New(doer Doer, attacher Attacher, inFlight int64, moved func(Move)) *Client {
	if moved == nil {
		moved = func(Move) {}
	}
	return &Client{
		doer: doer, attacher: attacher, moved: moved, hangs: hangs{begin: time.Now()}, bytes: semaphore.NewWeighted(inFlight), most: inFlight,
	}
}

// Handle is the use of one volume by one initiator. Its methods may be called concurrently.
type Handle struct {
	client    *Client
	initiator string
	newProof  func() Proof
	asking    chan struct{} // a token: whoever holds it may ask the attacher
	lost      chan struct{} // closed when no operation can succeed any more

	mu struct {
		sync.Mutex
		placement *layout.Map

		// tenancy is the present one, with its fence and its proof.
		tenancy tenancy
		id      layout.InitiatorID
		fence   layout.Fence
		proof   Proof
		// overtaken: a copyset has seen a newer epoch.
		overtaken bool
		// doubts counts the calls of Doubt, and sure is the count at which the epoch was known to be the last one.
		doubts, sure uint64
		// hangs is the count of them at which the tenancy began.
		hangs uint64
		pace  pace

		access layout.AccessGeneration
		// accessChanged is closed, and made anew, when access rises.
		accessChanged chan struct{}
		// dead is why every command ends, nil while the handle is of use.
		dead   error
		window window
	}
}

// Open returns a handle; it does no I/O. initiator is the initiator's name, access the volume's access generation as
// far as the caller knows it. newProof makes the proof of each tenancy; without one there is nobody who could be asked
// whether an operation is still wanted, and the handle ends with its first epoch.
func (c *Client) Open(placement *layout.Map, initiator string, access layout.AccessGeneration, newProof func() Proof) *Handle {
	h := &Handle{
		client: c, initiator: initiator, newProof: newProof, asking: make(chan struct{}, 1), lost: make(chan struct{}),
	}
	h.mu.placement = placement
	h.mu.access = access
	h.mu.accessChanged = make(chan struct{})
	h.mu.window.init(&h.mu)
	return h
}

// Err returns why no operation of the handle can succeed any more, nil while they can: ErrStaleEpoch or the error given to
// Revoke.
func (h *Handle) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.dead
}

// Revoke ends the handle: all its commands, also those under way, end with err.
func (h *Handle) Revoke(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dieLocked(err)
}

func (h *Handle) dieLocked(err error) {
	if h.mu.dead == nil {
		h.mu.dead = err
		close(h.lost)
		h.mu.window.cond.Broadcast()
	}
}

// SetMap replaces the placement after a resize.
func (h *Handle) SetMap(m *layout.Map) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.placement = m
}

// SetAccess tells the handle that its initiator may still use the volume under access generation a. A command that a
// copyset refused for an older one is repeated under it, unless it is bound to one (reservation.WithAccess).
func (h *Handle) SetAccess(a layout.AccessGeneration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.raiseAccessLocked(a)
}

func (h *Handle) raiseAccessLocked(a layout.AccessGeneration) {
	if a > h.mu.access {
		h.mu.access = a
		close(h.mu.accessChanged)
		h.mu.accessChanged = make(chan struct{})
	}
}

// Fence raises the handle's generation: a command whose context has ended by now can not take effect in a copyset that
// sees any later command of this initiator. It does not wait for anything.
func (h *Handle) Fence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.fence.Generation++
}
