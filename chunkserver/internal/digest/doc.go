// Package digest says in a few bytes what a replica of a copyset holds at one applied index, so that replicas can be compared.
//
//	entry OpDigest ──apply──► frozen content ──Take──► Runner ──► Result ──► heartbeat ──► metaserver: who differs
//	                          (each replica)           1 goroutine     └───► chunkrpc's Scrub service: which chunk
//
// Checksums find blocks that are not what was written to the disk. A digest finds what checksums can not: a replica that
// applied something else, or lost or kept a block that it should not have, with a checksum that fits.
//
// # Digest
//
// All numbers are little endian, SHA is SHA-256. Blocks are the allocated ones, by number; chunks are those that have one, by
// volume and number.
//
//	state = first 16 bytes of SHA(state)                      the encoded replicated state (package copyset)
//	chunk = first 8 bytes of SHA( block:4 CRC32C:4 … )
//	sum   = first 16 bytes of SHA( format:4 copyset:8 index:8 state:16 { volume:8 chunk:4 blocks:4 chunk:8 }… )
//
// format is Version × 256 + the version of the encoded state: sums of different formats are not compared, because releases
// that encode the state differently have different sums of equal replicas.
//
// The data are not read, the scrub does that: a digest costs the reading of extent maps, 8 bytes for each block.
package digest
