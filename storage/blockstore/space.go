package blockstore

import (
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extentmap"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// VolumeSpace is the space of a volume, in bytes.
type VolumeSpace = extentmap.VolumeSpace

// Space says what each byte of the data file is for. While no call changes the store,
//
//	File = one block (the header) + Content and Versions of all Volumes + Incoming + Logged + Reclaimable + Spare + Holes
type Space struct {
	// File is the length of the data file. It has disk space behind it but for Holes.
	File int64
	// Volumes is the space of each volume that has any.
	Volumes map[layout.VolumeID]VolumeSpace
	// Incoming is what images have brought that are not installed yet, and what was gathered and not exchanged.
	Incoming int64
	// Logged is what only the raft log holds: large payloads of entries that were not applied, or were overwritten since.
	Logged int64
	// Reclaimable is what was freed and waits for a checkpoint, a reader or an image.
	Reclaimable int64
	// Spare and Holes are free. Index is the length of the index, which is not in File.
	Spare, Holes, Index int64
}

// Space returns the space of the data file, byte by byte; Usage is cheaper.
func (s *Store) Space() Space {
	n := s.file.Counts()
	u := Space{
		File: n.File * layout.BlockSize, Volumes: make(map[layout.VolumeID]VolumeSpace), Incoming: s.incoming.Load() * layout.BlockSize,
		Logged: n.Logged * layout.BlockSize, Reclaimable: (n.Pending - n.Logged) * layout.BlockSize,
		Spare: n.Free * layout.BlockSize, Holes: n.Holes * layout.BlockSize, Index: s.index.Size(),
	}
	for _, c := range s.all() {
		c.addSpace(u.Volumes)
	}
	return u
}

// GiveBack gives disk space that the data file has to spare back to the file system: empty areas of 1 MiB, as long as the free blocks
// are more than twice those in use. It returns how much that was, in bytes.
func (s *Store) GiveBack() int64 {
	if s.ready() != nil {
		return 0
	}
	s.reclaim()
	return s.file.GiveBack() * layout.BlockSize
}
