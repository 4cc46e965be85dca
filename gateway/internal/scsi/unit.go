package scsi

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
)

// Identity is what a volume is known by; it is the same on every path and never changes.
type Identity = vpd.Identity

// DefaultVendor is the T10 vendor identification of the product.
const DefaultVendor = "ASHLAR"

// Limits bound one command; the Block Limits VPD page announces them. All are bytes unless they say otherwise.
type Limits struct {
	MaxTransfer         int64 // longest READ, WRITE, VERIFY; a longer one answers 05/24/00
	OptimalTransfer     int64 // longest one without a penalty
	MaxUnmap            int64 // sum of all descriptors of one UNMAP
	MaxUnmapDescriptors int   // descriptors of one UNMAP, 1..4095
	MaxWriteSame        int64 // longest WRITE SAME
	// MaxAtomic is what one WRITE ATOMIC writes, a power of two, or 0 if there is none: each run of that many bytes
	// that begins at a multiple of it is one operation of the Backend, done whole or not at all.
	MaxAtomic int64
}

// DefaultLimits returns the limits that ashlar serves with.
func DefaultLimits() Limits {
	return Limits{
		MaxTransfer:         8 << 20,
		OptimalTransfer:     1 << 20,
		MaxUnmap:            256 << 20,
		MaxUnmapDescriptors: 256,
		MaxWriteSame:        16 << 20,
		MaxAtomic:           128 << 10,
	}
}

// UnitConfig describes a logical unit.
type UnitConfig struct {
	Identity Identity

	// Capacity of the volume in bytes, a multiple of BlockLength, at least one block.
	Capacity int64

	// BlockLength is the logical block length in bytes, 512 or 4096. The physical block is ProvisioningBlock.
	BlockLength int

	// Limits of one command; see DefaultLimits.
	Limits Limits

	// MultiPort is the MULTIP bit of INQUIRY: the volume has more than one target port.
	MultiPort bool

	// TPGS is the field of that name in INQUIRY, 0..3: 0 no asymmetric access, 1 implicit.
	TPGS byte

	// DescriptorSense is the default of D_SENSE in the Control mode page: sense data in descriptor format.
	DescriptorSense bool
}

// Validate reports the first field that can not be served.
func (c UnitConfig) Validate() error {
	id := c.Identity
	switch {
	case id.NAA[0]>>4 != 6:
		return errors.New("scsi: NAA designator does not begin with 6")
	case !printable(id.Serial, 32):
		return fmt.Errorf("scsi: serial number %q is not 1..32 printable characters", id.Serial)
	case !printable(id.Vendor, 8):
		return fmt.Errorf("scsi: vendor %q is not 1..8 printable characters", id.Vendor)
	case !printable(id.Product, 16):
		return fmt.Errorf("scsi: product %q is not 1..16 printable characters", id.Product)
	case !printable(id.Revision, 4):
		return fmt.Errorf("scsi: revision %q is not 1..4 printable characters", id.Revision)
	case c.BlockLength != 512 && c.BlockLength != 4096:
		return fmt.Errorf("scsi: logical block length %d is neither 512 nor 4096", c.BlockLength)
	case c.Capacity < int64(c.BlockLength) || c.Capacity%int64(c.BlockLength) != 0:
		return fmt.Errorf("scsi: capacity %d is not a positive multiple of %d", c.Capacity, c.BlockLength)
	case c.TPGS > 3:
		return fmt.Errorf("scsi: TPGS %d is more than 3", c.TPGS)
	}
	return c.Limits.validate()
}

func (l Limits) validate() error {
	for _, n := range []int64{l.MaxTransfer, l.OptimalTransfer, l.MaxUnmap, l.MaxWriteSame} {
		if n < ProvisioningBlock || n%ProvisioningBlock != 0 || n > 1<<40 {
			return fmt.Errorf("scsi: limit %d is not a multiple of %d up to 1 TiB", n, ProvisioningBlock)
		}
	}
	if l.MaxAtomic != 0 && (l.MaxAtomic < ProvisioningBlock || l.MaxAtomic > l.MaxTransfer || l.MaxAtomic&(l.MaxAtomic-1) != 0) {
		return fmt.Errorf("scsi: atomic write of %d bytes is not a power of two up to the longest transfer", l.MaxAtomic)
	}
	if l.MaxTransfer > 1<<30 {
		return fmt.Errorf("scsi: longest transfer %d is more than 1 GiB", l.MaxTransfer)
	}
	if l.MaxUnmapDescriptors < 1 || l.MaxUnmapDescriptors > 4095 {
		return fmt.Errorf("scsi: %d UNMAP descriptors is not 1..4095", l.MaxUnmapDescriptors)
	}
	return nil
}

func printable(s string, most int) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7E {
			return false
		}
	}
	return len(s) > 0 && len(s) <= most
}

// LogicalUnit is one volume as a SCSI device, shared by all nexuses of this process that see it. Its methods may be
// called from any goroutine.
//
// Lock order: LUNMap.mu, then LogicalUnit.mu, then attentions.mu. None is held during I/O or a callback.
type LogicalUnit struct {
	config     UnitConfig
	shift      uint           // log2 of the logical block length
	blocks     atomic.Uint64  // capacity in logical blocks
	settings   atomic.Uint32  // mode.Settings; changed under mu
	operations *operationList // for the commands that report on commands
	buffers    sync.Pool      // *[]byte of bufferSize

	mu struct {
		sync.Mutex
		listeners map[*listener]struct{}
	}
}

// bufferSize is the length of the buffers that VERIFY and WRITE SAME work through, in bytes.
const bufferSize = 1 << 20

// listener is one I_T_L nexus as the logical unit sees it. It outlives a change of the mapping's other properties.
type listener struct {
	nexus      *Nexus
	lun        uint16
	attentions attentions
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
	u.buffers.New = func() any {
		b := make([]byte, bufferSize)
		return &b
	}
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
		l.attentions.add(AttentionCapacityChanged)
	}
	return nil
}

// Attention establishes a unit attention condition for every nexus but except, which may be nil.
func (u *LogicalUnit) Attention(code SenseCode, except *Nexus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.mu.listeners {
		if l.nexus != except {
			l.attentions.add(code)
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
		l.attentions.reset(code)
		if l.nexus != by {
			others = append(others, l)
		}
	}
	u.mu.Unlock()
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
