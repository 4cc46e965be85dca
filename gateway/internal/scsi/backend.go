package scsi

import "github.com/ashlar-storage/ashlar/gateway/internal/scsi/media"

// ProvisioningBlock is the unit of allocation of every Backend, in bytes: what Unmap frees and what the
// UNMAP GRANULARITY of the Block Limits VPD page announces.
const ProvisioningBlock = media.Block

// Backend is the medium of one volume as one initiator reaches it.
type Backend = media.Backend

// MediumError is an ErrMedium that knows its place.
type MediumError = media.Error

// Errors of a Backend; package media says what each means.
var (
	ErrStaleEpoch          = media.ErrStaleEpoch
	ErrNoSpace             = media.ErrNoSpace
	ErrMedium              = media.ErrMedium
	ErrReservationConflict = media.ErrReservationConflict
	ErrAccessRevoked       = media.ErrAccessRevoked
	ErrGone                = media.ErrGone
)
