// Package blockstore keeps the data of one disk: the blocks of all copysets that have a peer on this chunkserver,
// their checksums, and the point of the raft log up to which each copyset's content is durable.
//
// # Model
//
// Blocks of layout.BlockSize bytes are never overwritten in place (a damaged one is, by what it should hold, for
// everybody who has it). A write goes to freshly allocated blocks of one data file and then the chunk's extent map moves, in memory. The maps that changed since the last checkpoint are the
// overlay. The data of a large write goes to the file at once; that of a small one stays in memory, is read from there,
// and is written by the checkpoint, all of them together; one that was overwritten meanwhile is not written at all. Its
// blocks are allocated nevertheless, so that a checkpoint can not run out of them. A checkpoint (Copyset.Freeze,
// Store.Commit) writes the deferred blocks, syncs the data file, commits the overlay of the frozen copysets with their
// applied index and an opaque state as one batch of the index, flushes the index, and only then are the blocks that the
// change freed reusable and may the raft log be cut. No index is ever durable before the data that it points to. A crash
// loses the overlay and what was deferred; the raft log replays what follows the checkpoint's applied index, which is
// idempotent because the state goes back as a whole.
//
//	        large ──► blocks file ◄────────── 1 deferred blocks ──────────────────┐
//	Write ──┤                                                                     │
//	        small ──► memory ───► extent map (overlay) ──Freeze──► frozen ──► Commit ──► index
//	                  ▲                                            2 sync blocks, 3 batch, 4 flush
//	                  └──── free blocks ◄── no reader, no image holds them ◄──────┘
//
// The raft log keeps large payloads in the data file (Store.StoreBlocks), and applying the entry only moves the extent
// map there (Copyset.Adopt). Such a block has two owners, the log and the content, and is free when neither has it. After
// Open the log says which blocks its entries hold (Store.HoldBlocks) before any block is allocated.
//
// The data file is written with direct I/O where the file system has it, and read through the page cache, but for
// Copyset.Verify, which is to see the disk.
//
// # Directory
//
//	LOCK      held while the store is open
//	IDENTITY  whose disk this is; read before anything is touched
//	blocks    the data file
//	index/    a Pebble store without a write-ahead log
//
// The package comments of internal/disk and internal/extent draw the formats. IDENTITY has the version of the whole directory: one of
// another version is refused.
//
// # Gathering
//
// What is overwritten in small pieces lies scattered in the end. Copyset.Gather copies a stretch of a chunk to blocks that lie
// together, Copyset.Exchange moves the extent map there (gather.go). To the content that is no change: applied index, checksums
// and digests stay. What holds:
//
//  1. A block is exchanged only for a copy of itself: it was pinned since it was copied, so its address still means the same bytes.
//  2. The old place is freed by the checkpoint that makes the new one durable, like that of any overwritten block.
//  3. Blocks that the raft log or a version has too stay: to move them would be to have them twice.
//  4. It takes no space that writes may have: the reserve stays, and a store that is full gathers nothing.
//
// # Versions
//
// A volume has versions in each copyset: its content of earlier moments (Copyset.TakeVersion). A version and the content share
// all blocks that did not change since. To take one is to note its number; the first change of a leaf that a version has sets
// the leaf aside for the version, and the content goes on with a copy of the map. Which blocks a version alone has follows from
// the leaves of the same place next to its own, so no reference is counted that a crash could make wrong (internal/extentmap;
// internal/version reads one).
//
// # Image stream
//
// A copyset's content travels to another peer as a sequence of frames (internal/frame), each with a CRC32C, the blocks
// with their own checksums; internal/image reads it.
//
// # Bounds
//
// Only leaves in the overlay must be in memory; clean ones are in a cache bounded by Options.CacheSize. Per chunk there
// is a pointer and a bit per leaf, and per block of the disk one bit of the allocator.
//
// # Locks, in the order in which they are taken
//
//	Store.commitMu   one checkpoint, creation, removal or end of installation at a time; held across I/O
//	Store.mu         the set of copysets
//	Copyset.mu       extent maps; readers take it shared; never held across I/O, except by a reader whose leaf was
//	                 evicted again and again before it could use it (loadAttemptsMax)
//	Index.mu         held shared while the index is read, exclusive to close it
//	Store.freed      freed blocks that wait
//	File.growMu      growth of the data file, held across fallocate
//	late.mu          deferred blocks
//	allocator.mu     the bitmap
package blockstore
