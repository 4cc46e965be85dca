package lu

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/media"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/thirdparty"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
)

// Unit is one volume as a SCSI device, shared by all nexuses of this process that see it. Its methods may be called from
// any goroutine.
//
// Lock order: scsi.LUNMap.mu, then Unit.mu, then that of an attention.Queue. None is held during I/O or a callback.
type Unit struct {
	// Buffers are what its media are worked through.
	Buffers media.Buffers
	// Copies are those that write to it on behalf of other logical units.
	Copies thirdparty.Copies

	config       Config
	shift        uint          // log2 of the logical block length
	blocks       atomic.Uint64 // capacity in logical blocks
	settings     atomic.Uint32 // mode.Settings; changed under mu
	reservations atomic.Pointer[Reservations]

	mu struct {
		sync.Mutex
		listeners map[*Listener]struct{}
	}
}

// New checks config and makes the logical unit.
func New(config Config) (*Unit, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	u := &Unit{config: config, shift: uint(bits.TrailingZeros(uint(config.BlockLength)))}
	u.blocks.Store(uint64(config.Capacity) >> u.shift)
	u.settings.Store(uint32(u.defaultModes()))
	u.mu.listeners = make(map[*Listener]struct{})
	return u, nil
}

// Config returns what the logical unit was made from; its capacity may have grown since.
func (u *Unit) Config() *Config { return &u.config }

// Identity returns what the logical unit is known by.
func (u *Unit) Identity() vpd.Identity { return u.config.Identity }

// BlockLength returns the logical block length in bytes, Shift its log2.
func (u *Unit) BlockLength() int { return 1 << u.shift }

// Shift returns log2 of the logical block length in bytes.
func (u *Unit) Shift() uint { return u.shift }

// Blocks returns the capacity in logical blocks.
func (u *Unit) Blocks() uint64 { return u.blocks.Load() }

// SetCapacity changes the capacity, in bytes, while the logical unit is in use and tells every nexus with the unit
// attention 2A/09. The Backends must already reach that far. The capacity may only grow; the same one does nothing.
func (u *Unit) SetCapacity(bytes int64) error {
	if bytes <= 0 || bytes&(1<<u.shift-1) != 0 {
		return fmt.Errorf("scsi: capacity %d is not a positive multiple of %d", bytes, 1<<u.shift)
	}
	next := uint64(bytes) >> u.shift
	u.mu.Lock()
	defer u.mu.Unlock()
	switch now := u.blocks.Load(); {
	case next < now:
		return fmt.Errorf("scsi: capacity can not shrink from %d to %d blocks", now, next)
	case next == now:
		return nil
	}
	u.blocks.Store(next)
	for l := range u.mu.listeners {
		l.Attentions.Add(sense.AttentionCapacityChanged)
	}
	return nil
}
