// Package layout holds the identifiers, fencing numbers and the offset arithmetic that every part of ashlar
// shares. It imports only the standard library and does no I/O.
//
// A volume is a range of bytes cut into chunks of one size; chunk i lies in the copyset that Map.Locate computes:
//
//	volume   |---- chunk 0 ----|---- chunk 1 ----|---- chunk 2 ----|---- chunk 3 ----| ...
//	range 0  copysets [7 3 9]:  7                 3                 9                 7
//	range 1  (appended by a resize) has a list of its own
//
// A chunk is cut into blocks of BlockSize bytes, the unit of checksums and of allocation.
package layout

import (
	"fmt"
	"strconv"
)

// BlockSize is the unit of allocation and of checksums, in bytes.
const BlockSize = 4096

// DefaultChunkSize is the size of a chunk unless a volume says otherwise, in bytes.
const DefaultChunkSize = 16 << 20

// VolumeID names a volume for ever: it is never given to another one. Zero is no volume.
type VolumeID uint64

// CopysetID names one raft group for ever. Zero is no copyset.
type CopysetID uint64

// ChunkserverID names a chunkserver, that is one process with one disk, for ever. Zero is no chunkserver.
type ChunkserverID uint64

// PeerID names one incarnation of a copyset's member; it is the member's raft id. A member that lost its disk
// comes back under a new PeerID. Zero is no peer.
type PeerID uint64

// InitiatorID is the number that the metaserver gave to an initiator's name (IQN, eui or naa). Zero is no initiator.
type InitiatorID uint64

// Epoch is the fencing number that the metaserver issues for one (volume, initiator) whenever the initiator's
// path to the medium moves to another gateway.
type Epoch uint64

// Generation is the fencing number that a gateway raises itself below one Epoch: by an abort, a reset or the
// reinstatement of a session.
type Generation uint64

// AccessGeneration is the fencing number of a volume's access rights: whatever takes access away (reservation,
// ACL, unmapping, deletion) raises it.
type AccessGeneration uint64

// DeletedAccess is the AccessGeneration of a deleted volume: no request can carry a higher one.
const DeletedAccess AccessGeneration = 1<<64 - 1

// Seq numbers the mutations of one (volume, initiator, Epoch), from 1.
type Seq uint64

// ChunkID names a chunk: the index-th one of a volume.
type ChunkID struct {
	Volume VolumeID
	Index  uint32
}

func (c ChunkID) String() string { return fmt.Sprintf("%d/%d", c.Volume, c.Index) }

// Fence is the pair that orders the writers of one (volume, initiator). A higher epoch wins over any generation.
type Fence struct {
	Epoch      Epoch
	Generation Generation
}

// Compare returns -1, 0 or +1 as f is older than, equal to or newer than g.
func (f Fence) Compare(g Fence) int {
	switch {
	case f.Epoch != g.Epoch:
		if f.Epoch < g.Epoch {
			return -1
		}
		return 1
	case f.Generation != g.Generation:
		if f.Generation < g.Generation {
			return -1
		}
		return 1
	}
	return 0
}

func (f Fence) String() string { return fmt.Sprintf("%d.%d", f.Epoch, f.Generation) }

func (v VolumeID) String() string      { return strconv.FormatUint(uint64(v), 10) }
func (c CopysetID) String() string     { return strconv.FormatUint(uint64(c), 10) }
func (c ChunkserverID) String() string { return strconv.FormatUint(uint64(c), 10) }
func (p PeerID) String() string        { return strconv.FormatUint(uint64(p), 10) }
