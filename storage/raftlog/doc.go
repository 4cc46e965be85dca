// Package raftlog is the write-ahead log of one disk, shared by all copysets (raft groups) that live on it: one
// write and one sync commit the entries of many groups.
//
// # Files
//
//	DIR/LOCK                      locked while the log is open
//	DIR/%016x.log                 segment of that number; the numbers in use have no gap
//	DIR/%016x.spare               a file of segment size that waits to become a segment
//	DIR/DISTRUSTED                a write or sync failed: the log is not opened again
//
// A segment is made from a spare: its header is written and synced, then it is renamed and the directory synced. All
// numbers are little endian, all checksums CRC32C. The checksums of batches and records start from a seed that is the
// checksum of the log's identity and the segment's number, so what another log, or an earlier life of a reused file,
// left behind never verifies.
//
//	segment   | header, 4096 bytes | batch | batch | ... | zeros or stale bytes |
//
//	header    0 magic "ashlrlog"     8 version u32         12 crc u32 (of the other 60 bytes)
//	(first    16 identity [16]       32 number u64         40 prev u64: last batch of the segment before
//	64 bytes) 48 floor u64           56 size u64           these 64 bytes mean the same in all versions
//
//	batch     0 magic u32            4 crc u32 (of 8..64)  8 length u32, this header included
//	(64)      12 records u32         16 seq u64            24 prev u64: the batch before
//	          32 durable u64         40 floor u64          48 digest u32: checksum of all record headers
//	          52 flags u32 (0)       56 offset u64: where in the segment the batch starts
//
//	record    0 crc u32 (of 4.. to the payload's end)      4 length u32 of the payload
//	(40)      8 type u8   9 raft entry type u8             10 flags u16 (1: moved)
//	          12 low half of the batch's seq u32           16 copyset u64
//	          24 index u64           32 term u64           40 payload, padded with zeros to 8 bytes
//
//	type 1 entry     index, term and payload are the entry's
//	type 2 state     the log starts behind index, of that term; payload: term u64, vote u64, commit u64
//	type 3 reset     as state, and all entries before this record are gone
//	type 4 remove    the copyset is gone
//	type 5 side      index and term as type 1; the end of the data, its tail, is kept by the sidecar. Payload:
//	                 0 length of the tail u32      4 crc u32 of the tail   8 extents u32
//	                 12 extents × (first block u64, blocks u32)            the rest: the data before the tail
//
// Version 2 has type 5; version 1 is read too.
//
// Other types and flags, of records and of batches, are for later versions: a release that meets one that it does not
// know refuses the log with VersionError, whatever the segment's version says.
//
// One batch is one Append. Batches form a chain: seq rises, prev names the one before. durable is the seq up to which
// syncs had succeeded when the batch was written. floor is the lowest segment that recovery needs.
//
// # Recovery
//
// Open reads the segments from floor on in order; for the same index the later record wins and drops what is above
// it. In the last segment the first batch that does not verify, or does not continue the chain, ends the log: it and
// all behind it is a torn tail, never answered. But if any valid batch header behind it says that a batch at or
// after that place was durable, then it was answered, its damage is not from a crash, and Open refuses with
// CorruptError. The same goes for a missing segment and for one that ends before the batch that its successor names.
// Every Open lets seq jump, so that a dropped batch can never join the chain again, and syncs before it believes.
// What can not be told from a torn tail is damage to the very last batch after a crash, and what can not be seen is the
// loss of the newest segment's file; Close therefore adds an empty batch that vouches for the others.
//
// # Space
//
// Append only appends. The owner calls Compact, from the same goroutine, to free segments, strictly oldest first: so
// a truncation or a removal is never freed before what it cancels. A segment without live records is freed at once.
// States in the oldest segment are written again at the end. So are its live entries (flag moved: they take their
// place without dropping what is above them) if they are at most a quarter of a segment, and never a second time;
// otherwise Compact reports the copysets that pin the segment, and the owner checkpoints and truncates them. The
// new floor is durable before a file is given back. Freed files become spares: writing over blocks that were written
// before needs no file system metadata at all, and that halves the latency of a sync. Spares that are new are filled with
// zeros. Batches are written past the page cache in whole pages: zeros follow each to the end of its last page, which is
// written again with the next one; no other page is (package pages).
//
// # Sideloading
//
// A large payload is written once: straight to blocks of the data file where it will stay when the entry is applied
// (Sidecar). Append stores the tails of its entries, syncs them, and only then writes the records that point to them. A
// tail is the entry's as long as the entry is in the log: it is released when the truncation, the reset, the removal or
// the entry that drops it is durable. After Open, Attach tells which blocks the retained entries hold, before any block
// is given to somebody else. In memory and on the network an entry is whole.
//
// # Concurrency
//
// Append, Compact and Close exclude each other (Log.w). Lock order: Log.w, then Log.mu or Group.mu or that of the
// pool of spares, none of which is held while another of the three is taken, or during I/O. A reader takes a reference of a segment under
// Group.mu while one of the group's entries lies in it; a segment that left the log is reused once it has none.
package raftlog
