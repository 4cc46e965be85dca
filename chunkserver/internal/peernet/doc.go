// Package peernet carries raft messages, images and blocks between chunkservers: api/raft/v1 on streams (storage/stream)
// and over gRPC.
//
//	                     ┌─ control ═ stream ═► heartbeats, votes, answers ─┐   and the beat of the process
//	multiraft ─► Send ──►│                                                  ├─► Deliver ─► multiraft
//	                     ├─ data ════ stream ═► MsgApp with entries, ───────┤
//	                     │                      MsgTimeoutNow behind them ──┘
//	                     └─ bulk ════ calls ══► Install (images), ReadBlocks (repair)
//
// To each chunkserver there are three connections, so that a heartbeat never waits behind data and data never behind an
// image. All that waits for a stream goes into one batch, which Send writes itself unless messages come in crowds. Queues
// are bounded in messages and bytes; what does not fit, and what waits when a stream breaks, is dropped and reported as
// unreachable: raft repeats it.
//
// Batches are parsed and encoded by hand (wire.go; the format is api/raft/v1's). What a batch that came in becomes in
// memory is bounded. The entries of a message share one piece of it, which nothing else shares. The data of a large entry
// is sent where it lies: entries never change.
//
// A stream begins by saying which cluster and chunkserver it comes from, and whom it believes to talk to. The server
// refuses a stream that is not for it, so that an address that was given to another chunkserver does no harm.
package peernet
