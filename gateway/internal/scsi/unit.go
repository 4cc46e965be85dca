package scsi

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/attention"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/conflict"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/lu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/media"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/thirdparty"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
)

// Identity is what a volume is known by; it is the same on every path and never changes.
type Identity = vpd.Identity

// DefaultVendor is the T10 vendor identification of the product.
const DefaultVendor = "ASHLAR"

// UnitConfig describes a logical unit; see package lu.
type UnitConfig = lu.Config

// Limits bound one command.
type Limits = lu.Limits

// DefaultLimits returns the limits that ashlar serves with.
func DefaultLimits() Limits { return lu.DefaultLimits() }

// LogicalUnit is one volume as a SCSI device, shared by all nexuses of this process that see it. Its methods may be
// called from any goroutine.
//
// Lock order: LUNMap.mu, then LogicalUnit.mu, then that of an attention.Queue. None is held during I/O or a callback.
type LogicalUnit struct {
	config     UnitConfig
	shift      uint           // log2 of the logical block length
	blocks     atomic.Uint64  // capacity in logical blocks
	settings   atomic.Uint32  // mode.Settings; changed under mu
	operations *operationList // for the commands that report on commands
	buffers    media.Buffers
	reserved   reserved
	copies     thirdparty.Copies

	mu struct {
		sync.Mutex
		listeners map[*listener]struct{}
	}
}

// listener is one I_T_L nexus as the logical unit sees it. It outlives a change of the mapping's other properties.
type listener struct {
	nexus      *Nexus
	lun        uint16
	attentions attention.Queue
	permit     atomic.Pointer[conflict.Permit] // what the reservations let the nexus do, as it was last judged
	results    thirdparty.Results
}

// NewLogicalUnit checks config and makes the logical unit.
func NewLogicalUnit(config UnitConfig) (*LogicalUnit, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	u := &LogicalUnit{
		config:     config,
		shift:      uint(bits.TrailingZeros(uint(config.BlockLength))),
		operations: allOperations,
	}
	u.blocks.Store(uint64(config.Capacity) >> u.shift)
	u.settings.Store(uint32(u.defaultModes()))
	u.mu.listeners = make(map[*listener]struct{})
	return u, nil
}

// Identity returns what the logical unit is known by.
func (u *LogicalUnit) Identity() Identity { return u.config.Identity }

// BlockLength returns the logical block length in bytes.
func (u *LogicalUnit) BlockLength() int { return 1 << u.shift }

// Blocks returns the capacity in logical blocks.
func (u *LogicalUnit) Blocks() uint64 { return u.blocks.Load() }

// SetCapacity changes the capacity, in bytes, while the logical unit is in use and tells every nexus with the unit
// attention 2A/09. The Backends must already reach that far. The capacity may only grow; the same one does nothing.
func (u *LogicalUnit) SetCapacity(bytes int64) error {
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
		l.attentions.Add(AttentionCapacityChanged)
	}
	return nil
}

// Attention establishes a unit attention condition for every nexus but except, which may be nil.
func (u *LogicalUnit) Attention(code SenseCode, except *Nexus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.mu.listeners {
		if l.nexus != except {
			l.attentions.Add(code)
		}
	}
}

// reset is a logical unit reset (SAM-5 6.3.3) that by asked for: the mode pages have their default values, every nexus
// finds the unit attention code, and nothing else, and every other one is told that its commands are over.
func (u *LogicalUnit) reset(by *Nexus, code SenseCode) {
	u.mu.Lock()
	u.settings.Store(uint32(u.defaultModes()))
	others := make([]*listener, 0, len(u.mu.listeners))
	for l := range u.mu.listeners {
		l.attentions.Reset(code)
		if l.nexus != by {
			others = append(others, l)
		}
	}
	u.mu.Unlock()
	u.copies.Reset()
	for _, l := range others {
		if f := l.nexus.config.Aborted; f != nil {
			f(FlatLUN(l.lun))
		}
	}
}

func (u *LogicalUnit) attach(l *listener) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mu.listeners[l] = struct{}{}
}

func (u *LogicalUnit) detach(l *listener) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.mu.listeners, l)
}
