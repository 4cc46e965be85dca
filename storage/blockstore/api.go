package blockstore

import (
	"errors"
	"io"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

var errUnfinished = errors.New("blockstore: being written")

// Store is the data of one disk. Its methods may be called from any goroutine.
type Store struct{}

// Copyset is the content of one copyset on this disk. One goroutine at a time, its owner, changes it; the methods say
// which of them are the owner's. The others may be called from any goroutine at any time.
type Copyset struct{}

// Frozen is the part of a copyset's changes that one checkpoint makes durable.
type Frozen struct{}

// Image is a consistent copy of a copyset's content at its applied index.
type Image struct{}

// Installer replaces a copyset's content by that of an image that comes in as a stream.
type Installer struct{}

// Run is a run of blocks in the same state.
type Run struct {
	// Offset and Length are in bytes, within the chunk.
	Offset, Length uint32
	// Allocated says that the blocks hold data; blocks that are not allocated read as zeroes.
	Allocated bool
}

// BlockRun is a run of consecutive blocks of a chunk in an image.
type BlockRun struct {
	Chunk layout.ChunkID
	// First is the number of the first block within the chunk.
	First uint32
	// CRCs holds the CRC32C of each block, Data their bytes. Both are valid until the next call.
	CRCs []uint32
	Data []byte
}

// Usage is the space of a disk, in bytes.
type Usage struct {
	// Capacity is what the store can hold at most; with Options.Capacity 0 it follows the file system's free space.
	Capacity int64
	// Used is the space of the blocks that the copysets' content occupies.
	Used int64
	// Free is what can still be allocated, the reserve included: Capacity less Used and PendingFree.
	Free int64
	// PendingFree is the space of freed blocks that wait for a checkpoint, a reader or an image.
	PendingFree int64
	// Reserve is the part of Free that writes leave alone.
	Reserve int64
	// Overlay is the memory of the changes that are not durable yet; a checkpoint releases it.
	Overlay int64
	// Cache is the memory of the clean extent maps.
	Cache int64
}

// Close ends all use of the store. What no checkpoint has made durable is lost, as in a crash. Open images are closed.
// No other call may be in progress.
func (s *Store) Close() error { return errUnfinished }

// Err returns why the store is poisoned (*PoisonedError), or nil. A poisoned store only reads.
func (s *Store) Err() error { return errUnfinished }

// Poisoned is closed when the store is poisoned.
func (s *Store) Poisoned() <-chan struct{} { return nil }

// Copysets returns the copysets in the store, by number.
func (s *Store) Copysets() []layout.CopysetID { return nil }

// Copyset returns the copyset, or ErrNotFound.
func (s *Store) Copyset(id layout.CopysetID) (*Copyset, error) { return nil, errUnfinished }

// Create makes an empty copyset, durably: when it returns, it is there after a crash. ErrExists when it is there.
func (s *Store) Create(id layout.CopysetID) (*Copyset, error) { return nil, errUnfinished }

// Remove removes a copyset with all its data, durably. The owner must have stopped; readers get ErrRemoved. Images
// stay readable, and keep the blocks, until they are closed.
func (s *Store) Remove(id layout.CopysetID) error { return errUnfinished }

// Usage returns the space of the disk.
func (s *Store) Usage() Usage { return Usage{} }

// Commit makes the frozen changes durable, in one batch: it syncs the data file, writes and syncs the index, and gives
// the blocks that the changes freed back as soon as no reader or image holds them. After nil the raft log of each may
// be cut up to Frozen.Applied. The Frozens of one copyset are committed in the order in which they were taken, over one
// call or several. One that the end of an installation has overtaken is skipped. After ErrNoSpace (the file system is
// full) the same call can be tried again; any other failure poisons the store.
func (s *Store) Commit(frozen []*Frozen) error { return errUnfinished }

// NewInstaller begins to replace the content of a copyset, which need not exist.
func (s *Store) NewInstaller(id layout.CopysetID) (*Installer, error) { return nil, errUnfinished }

// ID returns the copyset's number.
func (c *Copyset) ID() layout.CopysetID { return 0 }

// Applied returns the raft index and term up to which entries were applied: those of the last SetApplied, and after
// Open or the end of an installation those of the durable content.
func (c *Copyset) Applied() (index, term uint64) { return 0, 0 }

// Durable returns the raft index and term of the last durable checkpoint.
func (c *Copyset) Durable() (index, term uint64) { return 0, 0 }

// State returns the state of the last durable checkpoint (nil for a new copyset). The caller must not change it.
func (c *Copyset) State() []byte { return nil }

// Write writes data at off, both multiples of 512 bytes. crcs holds the CRC32C of each block that lies wholly in the
// range, in order, and is trusted: it was verified where the data came from the network. nil crcs are computed here.
// A block that is only partly in the range is read, verified (*ChecksumError), merged and gets a new checksum. Readers
// see all or nothing of it. On any error (ErrNoSpace, *IOError, *PoisonedError, ErrRange) nothing is changed. data is
// borrowed until Write returns. For the owner.
func (c *Copyset) Write(ch layout.ChunkID, off uint32, data []byte, crcs []uint32) error {
	return errUnfinished
}

// Discard gives back the blocks that lie wholly in the range, which then read as zeroes; others keep their data. off
// and length are multiples of 512 bytes. For the owner.
func (c *Copyset) Discard(ch layout.ChunkID, off, length uint32) error { return errUnfinished }

// WriteZeroes makes the range read as zeroes. It gives whole blocks back and writes partial ones like Write. off and
// length are multiples of 512 bytes. For the owner.
func (c *Copyset) WriteZeroes(ch layout.ChunkID, off, length uint32) error { return errUnfinished }

// DeleteVolume gives back all blocks of the volume in this copyset. For the owner.
func (c *Copyset) DeleteVolume(v layout.VolumeID) error { return errUnfinished }

// SetApplied sets the raft index and term up to which entries were applied. For the owner.
func (c *Copyset) SetApplied(index, term uint64) {}

// Repair replaces a damaged block by data, one block that a peer has. It changes nothing and returns *ChecksumError
// when data is not what the block's checksum says, and nothing when the block is not allocated. off is a multiple of
// the block size. For the owner.
func (c *Copyset) Repair(ch layout.ChunkID, off uint32, data []byte) error { return errUnfinished }

// Read fills dst with the bytes at off, both multiples of 512 bytes, each block verified; blocks that are not
// allocated are zeroes. It appends the CRC32C of each block that lies wholly in the range to crcs and returns that. On
// *ChecksumError, and any other error, dst holds nothing of use.
func (c *Copyset) Read(ch layout.ChunkID, off uint32, dst []byte, crcs []uint32) ([]uint32, error) {
	return nil, errUnfinished
}

// Allocated appends to runs which blocks of the range are allocated, as adjacent runs that alternate and cover the
// range, and returns that. off and length are multiples of 512 bytes.
func (c *Copyset) Allocated(ch layout.ChunkID, off, length uint32, runs []Run) ([]Run, error) {
	return nil, errUnfinished
}

// Usage returns the allocated bytes of each volume that has any in this copyset.
func (c *Copyset) Usage() map[layout.VolumeID]int64 { return nil }

// Freeze takes the changes since the last Freeze, with the applied index and state, for Commit. It costs no I/O and no
// time that grows with the content. The Frozen owns state from now on. An unchanged copyset may be frozen too. For the
// owner.
func (c *Copyset) Freeze(state []byte) *Frozen { return nil }

// Copyset returns the copyset that was frozen.
func (f *Frozen) Copyset() *Copyset { return nil }

// Applied returns the raft index and term that the checkpoint makes durable.
func (f *Frozen) Applied() (index, term uint64) { return 0, 0 }

// Snapshot returns a consistent image of the content, with the applied index and state. Nothing is copied; blocks of
// the image are not reused until Close, so an image is not to be kept longer than the transfer that it serves. The
// image owns state from now on. For the owner; the image is used by one goroutine at a time, whichever.
func (c *Copyset) Snapshot(state []byte) (*Image, error) { return nil, errUnfinished }

// Copyset returns the copyset that the image is of.
func (im *Image) Copyset() layout.CopysetID { return 0 }

// Applied returns the raft index and term of the image.
func (im *Image) Applied() (index, term uint64) { return 0, 0 }

// State returns the image's state. The caller must not change it.
func (im *Image) State() []byte { return nil }

// NextRun returns the next blocks of the image, verified, at most 64 of one chunk, in the order of volume, chunk and
// block; io.EOF after the last. On *ChecksumError the bad block is skipped: the next call goes on behind it.
func (im *Image) NextRun() (BlockRun, error) { return BlockRun{}, errUnfinished }

// Next returns the next frame of the image's stream in buf's space, which grows to at most FrameMax bytes; io.EOF
// after the last. An error, *ChecksumError included, ends the stream; the receiver then aborts. Next and NextRun are
// not used on the same image.
func (im *Image) Next(buf []byte) ([]byte, error) { return nil, errUnfinished }

// WriteTo writes the stream, frame by frame.
func (im *Image) WriteTo(w io.Writer) (int64, error) { return 0, errUnfinished }

// Close lets the image's blocks go. It may be called more than once.
func (im *Image) Close() {}

// Write takes the next bytes of the stream, cut anywhere. It verifies every frame and every block and writes the
// blocks to free space of the disk. After an error (*ImageError, ErrNoSpace, *IOError, *PoisonedError) only Abort is
// left.
func (in *Installer) Write(p []byte) (int, error) { return 0, errUnfinished }

// Finish replaces the copyset's content, applied index and state by those of the image, durably and at once, and frees
// what was there; the copyset is made when it does not exist. *ImageError when the stream did not end. Frozens that
// were taken before are obsolete. The copyset's owner calls it, or nobody owns it. On an error the old content stays
// and Abort is left.
func (in *Installer) Finish() (*Copyset, error) { return nil, errUnfinished }

// Abort gives the installer's blocks back. It may be called at any time, after Finish it does nothing.
func (in *Installer) Abort() {}
