// Package heartbeat is a chunkserver's side of the control path, api/meta/v1: who it is, how it reports and how it obeys.
//
//	identity (file) ─► register, until it has an id ─► heartbeat each second ─► active metaserver
//	generation (file)                                   │ reports of all copysets      │
//	                                                    ◄── orders, addresses ─────────┘
//	                                                    ├─► store: revision, generation, new and removed peers ─► disk
//	                                                    └─► move: leaders and members ─► multiraft
//
// Orders carry the election revision of the metaserver that gives them. The highest one is on disk before any of its
// orders is obeyed; orders of a lower one are refused: a metaserver that was replaced and does not know it moves nothing.
// Orders are idempotent and come again until reports show that they took effect, so each of the two that carry them out takes
// one batch at a time, and what comes meanwhile is dropped. Neither delays a heartbeat, and no heartbeat waits for the disk: one
// that does not answer is to be told of, and what it leads is to be moved away.
//
// A metaserver may answer that this chunkserver must not serve (another cluster's disk, an older copy of the directory): that
// ends it.
//
// No metaserver is needed to serve: a chunkserver that has an id starts with the addresses that it knew last.
package heartbeat
