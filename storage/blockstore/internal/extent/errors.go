package extent

import (
	"errors"
	"fmt"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// ErrRange means an offset, a length or a number of checksums that the call does not allow.
var ErrRange = errors.New("blockstore: range not allowed")

// VersionError means that the directory, or a value in it, has a format that this program does not read: it was written by
// a newer one, or by one so old that its format was given up. Nothing was touched.
type VersionError struct {
	// What names the file or value.
	What        string
	Have, Knows uint32
}

func (e *VersionError) Error() string {
	if e.Have < e.Knows {
		return fmt.Sprintf("blockstore: %s has format %d of an earlier release, this program reads format %d only", e.What, e.Have, e.Knows)
	}
	return fmt.Sprintf("blockstore: %s has format %d, this program knows up to %d", e.What, e.Have, e.Knows)
}

// CorruptError means that something other than a block's data is damaged or missing: the store can not be opened or
// that part of it not be used, and the peers on this disk have to be rebuilt.
type CorruptError struct {
	// What names the file or value and says what is wrong with it.
	What string
	Err  error
}

func (e *CorruptError) Error() string {
	if e.Err == nil {
		return "blockstore: damaged: " + e.What
	}
	return fmt.Sprintf("blockstore: damaged: %s: %v", e.What, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }

// ChecksumError means that a block's bytes are not those that were written, or can not be read. Other blocks are not
// affected; the block can be repaired from another peer (Copyset.Repair).
type ChecksumError struct {
	Copyset layout.CopysetID
	Chunk   layout.ChunkID
	// Block is the number of the block within the chunk.
	Block uint32
	// Version is a version of the volume that has the block, which the content of now may have too; 0: that content was looked at.
	Version uint64
	// Err is the I/O error when the block could not be read, else nil.
	Err error
}

func (e *ChecksumError) Error() string {
	where := fmt.Sprintf("copyset %d chunk %v block %d", e.Copyset, e.Chunk, e.Block)
	if e.Version != 0 {
		where += fmt.Sprintf(" of version %d", e.Version)
	}
	if e.Err != nil {
		return fmt.Sprintf("blockstore: %s: %v", where, e.Err)
	}
	return fmt.Sprintf("blockstore: %s: checksum mismatch", where)
}
func (e *ChecksumError) Unwrap() error { return e.Err }
