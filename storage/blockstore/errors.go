package blockstore

import (
	"errors"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/frame"
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/image"
)

var (
	// ErrExists means that the copyset exists already.
	ErrExists = errors.New("blockstore: copyset exists")
	// ErrNotFound means that there is no such copyset.
	ErrNotFound = errors.New("blockstore: no such copyset")
	// ErrRemoved means that the copyset was removed while it was in use.
	ErrRemoved = errors.New("blockstore: copyset removed")
	// ErrNoVersion means that the volume has no such version.
	ErrNoVersion = errors.New("blockstore: no such version")
)

// ImageError means that an image stream is damaged, cut, or not for this copyset. Nothing was changed.
type ImageError = frame.Error

// The errors of the parts below.
var (
	// ErrImageClosed means that the image was closed, or that its copyset was removed from the index.
	ErrImageClosed = image.ErrClosed
	// ErrRange means an offset, a length or a number of checksums that the call does not allow. It is the caller's
	// mistake; nothing was changed.
	ErrRange = extent.ErrRange
	// ErrNoSpace means that free space would fall below the reserve, or that the file system is full. Nothing was
	// changed. Deletes, discards and checkpoints do not answer it unless the file system itself is full.
	ErrNoSpace = disk.ErrNoSpace
	// ErrClosed means that the store was closed.
	ErrClosed = disk.ErrClosed
)

// The types of the errors of the parts below.
type (
	// ChecksumError means that a block's bytes are not those that were written, or can not be read. Other blocks are not
	// affected; the block can be repaired from another peer (Copyset.Repair).
	ChecksumError = extent.ChecksumError
	// LockedError means that another process, or another Store of this one, has the directory open.
	LockedError = disk.LockedError
	// ForeignError means that the directory belongs to another cluster or chunkserver. Nothing in it was touched.
	ForeignError = disk.ForeignError
	// VersionError means that the directory, or a value in it, has a format that this program does not know: it was
	// written by a newer one. Nothing was touched.
	VersionError = extent.VersionError
	// CorruptError means that something other than a block's data is damaged or missing: the store can not be opened
	// or that part of it not be used, and the peers on this disk have to be rebuilt.
	CorruptError = extent.CorruptError
	// IOError is a failed operation on the data file or the index. The operation changed nothing that can be seen.
	IOError = disk.IOError
	// PoisonedError means that a sync, or a write of the index, failed earlier: what the disk holds is not known, so
	// nothing is changed any more until the disk's peers were rebuilt. Reads still work, each verified.
	PoisonedError = disk.PoisonedError
)

// Identity says whose disk a directory is.
type Identity = disk.Identity
