// Package multiraft runs the raft groups of one chunkserver: many copysets, few goroutines, one log.
//
//	Propose ─► inbox ─► worker ──MsgStorageAppend──► log writer ── one Append, one sync for all groups
//	Deliver ─►          │  ▲ ▲                          │
//	tick ────►          │  │ └──── responses ◄──────────┴──► answers to leaders (after the sync)
//	                    │  │
//	                    │  └── applied ◄── applier ◄─────── MsgStorageApply
//	                    │                   │   └─► outcomes to the waiters, fences and index published
//	                    └─► Transport       └─► blockstore
//
// A group belongs to one worker, which alone touches its raft node, and to one applier, which alone changes its
// replicated state and its data. Both serve many groups and never wait for each other. A worker takes all that waits in
// its inbox at once, so one wake-up costs one round through raft per group and not per message; the log writer takes the
// appends of all groups at once, so one sync commits many groups' entries. A leader's MsgApp leave before its own sync.
//
// # Reads
//
// A leader serves reads without a raft round while it has the lease (package lease). Reads run on the caller's goroutine
// against three values that worker and applier publish: the lease's end, the fences, and the blockstore itself.
//
// # Idle groups
//
// A group that is idle goes quiet (quiet.go, package quiet): its worker passes it over until it has something to do. Groups
// that are awake tick.
//
// # Failures
//
// An entry that can not be applied blocks its group until it can: no space is tried again each second, a damaged block
// is repaired from another peer. Any other failure stops the group for good: it takes part in nothing any more and its
// report says why. A failed sync of the log stops all groups. Nothing is skipped and no sync is tried again.
//
// # Stop order
//
// Run stops the workers and the beat of the process first (nothing new is appended, applied or sent), then the log writer
// and the appliers (they finish what they took), then the checkpointer and the snapshot senders, then fails all waiters. Log
// and Store are closed by whoever opened them, after Run returned.
//
// # Lock order
//
//	Host.mu → worker.mu, applier.mu, logWriter.mu, proposals.Set.mu (these four are never held together)
//
// No I/O happens under a lock.
package multiraft
