// Package chunkrpc serves the requests of gateways, api/chunk/v1 on streams (storage/stream), in front of multiraft.
//
//	stream ─► receive ─┬─ mutation ─► Propose … applier ─► Done ─┐
//	                   ├─ read (one of a batch) ─► here ─────────┤
//	                   └─ other reads ─► readers ────────────────┴─► responses ─► stream
//
// Each stream has the goroutine that receives, and one that sends. What can be answered waits in one queue and is sent as
// one batch: by the one who answers, if no request is left that could be answered next, or by the sender. A stream has at
// most inflightMax requests and inflightBytes of data between receiving and answering; above, receiving waits, and TCP's
// flow control tells the client.
//
// Batches are parsed and encoded by hand (wire.go; the format is api/chunk/v1's). A batch is parsed where the stream received
// it, and those bytes are borrowed until all of its requests have begun: Propose has encoded a command by then, a read needs
// no more of its request, and what waits for a reader has a copy of its own. Long data of a read is sent where it lies.
//
// A request's fences are checked where they must be: a mutation's at apply, a read's around the read. A read whose fence
// is newer than the copyset's has it raised by an entry and is then read again. A damaged block is repaired from another
// peer and read again.
package chunkrpc
