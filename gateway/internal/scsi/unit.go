package scsi

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/lu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
)

// Identity is what a volume is known by; it is the same on every path and never changes.
type Identity = vpd.Identity

// DefaultVendor is the T10 vendor identification of the product.
const DefaultVendor = "ASHLAR"

// UnitConfig describes a logical unit.
type UnitConfig = lu.Config

// Limits bound one command.
type Limits = lu.Limits

// DefaultLimits returns the limits that ashlar serves with.
func DefaultLimits() Limits { return lu.DefaultLimits() }

// LogicalUnit is one volume as a SCSI device, shared by all nexuses of this process that see it; see package lu.
type LogicalUnit = lu.Unit

// Reservations are the reservations of a logical unit, with the access generation of the medium that came with them.
type Reservations = lu.Reservations

// NewLogicalUnit checks config and makes the logical unit.
func NewLogicalUnit(config UnitConfig) (*LogicalUnit, error) { return lu.New(config) }
