// Package copyset is the replicated state machine of one copyset: what a committed entry does to the fences, the
// access generations, the outcomes of retried mutations, the membership and the data. It has no goroutine, socket, file
// or clock: entries go in (State.Apply, State.ApplyChange), outcomes come out, and the data is changed through Medium.
//
// # Command
//
// A normal entry is empty (the first of a leader's term) or one command (integers are little endian):
//
//	 0  1  version, 1
//	 1  1  op
//	 2  2  flags, 0
//	 4  4  chunk
//	 8  8  volume
//	16  8  initiator
//	24  8  epoch         of (volume, initiator)
//	32  8  generation    below the epoch
//	40  8  access generation of the volume
//	48  8  seq           of (volume, initiator, epoch), 0 when the op has none
//	56  8  low water     the client never asks again about a seq below it
//	64  4  offset        bytes within the chunk, a multiple of 512
//	68  4  length        bytes, a multiple of 512
//	72  8  proposer      the peer that proposed it
//	80  8  proposal      its number there; tells the proposer whom to answer
//	88  4  n, the number of checksums: of the whole blocks that are written
//	92  4  p, the bytes of payload
//	96 4n  CRC32C of each whole block, in order
//	 …  p  payload: the data of a write; what to compare, then what to write, of a compare and write
//
// # What an entry does
//
// Checks come in this order, all against the replicated state, so that every replica decides the same:
//
//  1. the volume was deleted: STALE_ACCESS
//  2. the epoch is older than the pair's: STALE_FENCE
//  3. same epoch and the seq has a stored outcome: that outcome, whatever the generations say: it is the same operation
//     (newer generations are raised all the same)
//  4. the generation is older: STALE_FENCE; the access generation is older: STALE_ACCESS
//  5. what is newer is raised; a newer epoch forgets all outcomes
//  6. the low-water mark rises; a seq below it: FORGOTTEN; one beyond the window: INVALID
//  7. the operation runs, and its outcome is stored under the seq
//
// An outcome of 1 to 4 is not stored, because the operation did not happen: it may be tried again with what the answer
// says.
//
// A digest (op 7, of volume 0; op 10 in logs that have it) changes nothing but the applied index. It marks a place in the log at
// which all replicas must hold the same: the state's encoding, which has one form only, and the checksums of all blocks. Releases
// without digests apply a raise of volume 0 as a command that is INVALID, which every replica may meet, so they go on beside newer
// ones; at an op that they do not know they would stop.
//
// # Failures of the medium
//
// Apply returns an error when the medium could not do its part (damaged old block below a partial write, no space, a
// failed disk). Such an entry did not happen on this replica, the state's applied index did not move, and the caller
// must repair and apply the same entry again, or stop the replica for good. It never skips. So replicas can stop, but
// not diverge.
//
// # State
//
// See blob.go for the format in which checkpoints and images carry the state.
package copyset
