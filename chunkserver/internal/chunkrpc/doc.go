// Package chunkrpc is the data path's gRPC service, api/chunk/v1, in front of multiraft.
//
//	stream ─► receive ─┬─ mutation ─► Propose … applier ─► Done ─┐
//	                   ├─ read (one of a batch) ─► here ─────────┤
//	                   └─ other reads ─► readers ────────────────┴─► responses ─► send ─► stream
//
// Each stream has the goroutine that receives, which is gRPC's, and one that sends. Everything that can be answered
// waits for the sender in one queue, which it sends as one message. A stream has at most inflightMax requests and
// inflightBytes of data between receiving and sending; above, receiving waits, and flow control tells the client.
//
// Batches are parsed and encoded by hand (wire.go; the format is api/chunk/v1's). A batch is parsed where grpc received it,
// and those bytes are given back when all of its requests have begun: Propose has encoded a command by then, a read needs
// no more of its request, and what waits for a reader has a copy of its own.
//
// A request's fences are checked where they must be: a mutation's at apply, a read's around the read. A read whose fence
// is newer than the copyset's has it raised by an entry and is then read again. A damaged block is repaired from another
// peer and read again.
package chunkrpc
