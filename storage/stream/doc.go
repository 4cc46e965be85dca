// Package stream carries the batches of the data path between daemons: from a client to a chunkserver (api/chunk/v1) and
// from chunkserver to chunkserver (api/raft/v1). A stream is a TCP connection that begins with a hello from the one who
// dialled and its answer, and then has frames in both directions until it ends.
//
//	hello    0 magic "ashlar/s"  8 length u16  10 lowest u8  11 highest u8  12 purpose u8  13 zero×3  16 flags u32  20 zero×4
//	        24 cluster×16  40 from u64  48 to u64  56 … what newer versions add …  length-4 CRC32C u32 of all before
//	answer   0 magic "ashlar/s"  8 length u16  10 code u8  11 version u8  12 flags u32  16 text …  length-4 CRC32C u32
//	frame    0 length u32 of what follows the header  4 kind u8  5 spans u8  6 zero×2  8 CRC32C u32 of the 8 bytes before and
//	        what follows, less the spans  12 payload …, and for each span its offset in the payload u32, its length u32
//
// Numbers are little endian. The length of hello and answer is that of the whole. The answer names the version that is
// spoken: the highest that both know. A flag that is not known is refused, by name; a field behind those above is ignored:
// so a peer of a newer version can join, and says by a flag what must not be ignored. A server has one address for streams
// and for gRPC: HTTP/2 begins with "PRI * HT" instead of the magic.
//
// A frame is a batch of protobuf, which api/ documents; or empty, to show that the sender is alive; or the text why the
// sender ends the stream. Its checksum covers everything: blocks have their own from the gateway's edge to the disk, but
// what says where a block goes, and raft's terms and indexes, has nothing but TCP's 16 bits.
//
// Who has something to send writes it, if it is little and nobody else is writing, and never waits for the socket: what
// that does not take is left to the stream's own goroutine (Run). So an answer that comes alone costs no switch to another
// goroutine at either end, and many that come together share one frame. Frames are read by one goroutine into one buffer
// and are parsed where they lie.
//
// Nothing is encrypted and nobody proves who he is, as on the gRPC connections between daemons: the network between them
// must be a trusted one.
package stream
