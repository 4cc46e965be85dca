// Package volume is the client of one volume for one initiator: it splits I/O at chunk borders, computes the blocks'
// checksums, routes to the copysets' leaders, repeats what got no answer, and carries the fencing numbers.
//
//	Handle.WriteAt ─ split ─► extent ─ number (Seq), fence, CRC32C ─► chunkclient ─► copyset leader
//	                    └───► extent ─ …
//
// Fencing. A Handle is one tenancy: it belongs to one (volume, initiator, epoch). The first command that reaches the
// medium asks the Attacher for the epoch. When a copyset answers that it has seen a newer epoch, another gateway owns
// the initiator's path: the Handle is lost, for ever, all its commands end with ErrStaleEpoch, and whoever uses it must
// end its sessions. A new Handle gets a new epoch. Below the epoch the Handle raises its generation itself (Fence):
// commands that are still wanted are repeated under the new one, under their old sequence numbers, so they take effect
// once; those that were cancelled are refused by every copyset that has seen the new generation.
//
// Exactness. Each mutation has a number of its own; a copyset remembers the outcomes of those above the low-water mark,
// the lowest number that is not settled here. At most windowSize numbers are unsettled.
package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

var (
	// ErrStaleEpoch ends every command of a handle whose initiator moved to another gateway.
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

// Attacher asks the metaserver for the initiator's next epoch on a volume.
type Attacher interface {
	Attach(ctx context.Context, volume layout.VolumeID, initiator string, had layout.Epoch) (Attachment, error)
}

// Attachment is what the metaserver issued.
type Attachment struct {
	Initiator layout.InitiatorID
	Epoch     layout.Epoch
	Access    layout.AccessGeneration
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
	bytes    *semaphore.Weighted
	most     int64
}

// New returns a client; inFlight bounds the bytes of data on their way, at least 1.
func New(doer Doer, attacher Attacher, inFlight int64) *Client {
	return &Client{doer: doer, attacher: attacher, bytes: semaphore.NewWeighted(inFlight), most: inFlight}
}

// Handle is the use of one volume by one initiator in one epoch. Its methods may be called concurrently.
type Handle struct {
	client    *Client
	initiator string
	attach    chan struct{} // a token: whoever holds it may ask the attacher
	lost      chan struct{}

	mu struct {
		sync.Mutex
		placement *layout.Map
		attached  bool
		id        layout.InitiatorID
		fence     layout.Fence
		access    layout.AccessGeneration
		// accessChanged is closed, and made anew, when access rises.
		accessChanged chan struct{}
		// dead is why every command ends, nil while the handle is of use.
		dead   error
		window window
	}
}

// Open returns a handle; it does no I/O. initiator is the initiator's name, access the volume's access generation as
// far as the caller knows it.
func (c *Client) Open(placement *layout.Map, initiator string, access layout.AccessGeneration) *Handle {
	h := &Handle{client: c, initiator: initiator, attach: make(chan struct{}, 1), lost: make(chan struct{})}
	h.mu.placement = placement
	h.mu.access = access
	h.mu.accessChanged = make(chan struct{})
	h.mu.window.init(&h.mu)
	return h
}

// Lost is closed when no command of the handle can succeed any more; Err says why.
func (h *Handle) Lost() <-chan struct{} { return h.lost }

// Err returns ErrStaleEpoch or the error given to Revoke once Lost is closed, nil before.
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

// Attached returns the handle's fence, and false while it has none.
func (h *Handle) Attached() (layout.Fence, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.fence, h.mu.attached
}

// Attach makes sure that the handle has an epoch, which it asks the Attacher for if it has none. Each command does so by
// itself; it is for a caller that has something to do in between.
func (h *Handle) Attach(ctx context.Context) error {
	h.mu.Lock()
	attached, dead := h.mu.attached, h.mu.dead
	h.mu.Unlock()
	if dead != nil || attached {
		return dead
	}
	select {
	case h.attach <- struct{}{}:
		defer func() { <-h.attach }()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.lost:
		return h.Err()
	}
	h.mu.Lock()
	attached = h.mu.attached
	volume := h.mu.placement.Volume
	h.mu.Unlock()
	if attached {
		return nil
	}
	a, err := h.client.attacher.Attach(ctx, volume, h.initiator, 0)
	if err != nil {
		return fmt.Errorf("volume: attach %d for %s: %w", volume, h.initiator, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.attached = true
	h.mu.id = a.Initiator
	h.mu.fence.Epoch = a.Epoch
	if a.Access > h.mu.access {
		h.mu.access = a.Access
	}
	return h.mu.dead
}
