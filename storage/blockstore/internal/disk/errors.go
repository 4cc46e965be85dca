package disk

import (
	"errors"
	"fmt"
)

var (
	// ErrNoSpace means that free space would fall below the reserve, or that the file system is full. Nothing was
	// changed. Deletes, discards and checkpoints do not answer it unless the file system itself is full.
	ErrNoSpace = errors.New("blockstore: no space")
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("blockstore: closed")
)

// ForeignError means that the directory belongs to another cluster or chunkserver. Nothing in it was touched.
type ForeignError struct {
	Dir        string
	Have, Want Identity
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("blockstore: %s belongs to cluster %x chunkserver %d, not to cluster %x chunkserver %d",
		e.Dir, e.Have.Cluster, e.Have.Chunkserver, e.Want.Cluster, e.Want.Chunkserver)
}

// IOError is a failed operation on the data file or the index. The operation changed nothing that can be seen.
type IOError struct {
	// Op is what was tried: write, grow, punch, index.
	Op  string
	Err error
}

func (e *IOError) Error() string { return fmt.Sprintf("blockstore: %s: %v", e.Op, e.Err) }
func (e *IOError) Unwrap() error { return e.Err }

// PoisonedError means that a sync, or a write of the index, failed earlier: what the disk holds is not known, so
// nothing is changed any more until the disk's peers were rebuilt. Reads still work, each verified.
type PoisonedError struct {
	// Err is the failure that poisoned the store.
	Err error
}

func (e *PoisonedError) Error() string { return fmt.Sprintf("blockstore: poisoned: %v", e.Err) }
func (e *PoisonedError) Unwrap() error { return e.Err }

// LockedError means that another process, or another Store of this one, has the directory open.
type LockedError struct {
	Dir string
	Err error
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("blockstore: %s is in use by another process: %v", e.Dir, e.Err)
}
func (e *LockedError) Unwrap() error { return e.Err }
