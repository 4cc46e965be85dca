// Package lu is the logical unit: one volume as a SCSI device, with what all nexuses that see it share. It knows no command.
//
//	config.go       identity, size, limits of one command
//	unit.go         capacity
//	listener.go     the nexuses that see it, what they are told, reset
//	modes.go        what MODE SELECT has changed
//	reservation.go  the reservations, as they are known here
package lu

import (
	"errors"
	"fmt"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/media"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
)

// ProvisioningBlock is the unit of allocation, in bytes.
const ProvisioningBlock = media.Block

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

// Config describes a logical unit.
type Config struct {
	Identity vpd.Identity

	// Capacity of the volume in bytes, a multiple of BlockLength, at least one block.
	Capacity int64

	// BlockLength is the logical block length in bytes, 512 or 4096. The physical block is ProvisioningBlock.
	BlockLength int

	// Limits of one command; see DefaultLimits.
	Limits Limits

	// DescriptorSense is the default of D_SENSE in the Control mode page: sense data in descriptor format.
	DescriptorSense bool
}

// Validate reports the first field that can not be served.
func (c Config) Validate() error {
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
