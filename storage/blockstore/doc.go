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
// IDENTITY, written to IDENTITY.tmp, synced and renamed (integers are little endian):
//
//	 0  8  magic "ashlarbs"
//	 8  2  format version, 1
//	10  1  state: 1 formatting (the other files may be missing or half made), 2 formatted
//	11  5  zero
//	16 16  cluster
//	32  8  chunkserver
//	40 16  store: random, the same in the header of blocks and in the index
//	56  4  CRC32C of bytes 0-55
//
// blocks: block n is at byte n × 4096. Block 0 is a header, so that the address 0 means "not allocated":
//
//	 0  8  magic "ashlarbk"
//	 8  2  format version, 1
//	10  6  zero
//	16 16  store
//	32  4  CRC32C of bytes 0-31
//
// index: the keys are big endian, so that they sort by number:
//
//	0x01                                                 store record: version, store
//	0x02 copyset:8                                       copyset record: version, flags, incarnation, index, term, state
//	0x03 incarnation:8 volume:8 chunk:4 leaf:4           leaf: the map of 64 blocks (256 KiB) of a chunk
//
// An incarnation is one life of a copyset's content: installing an image writes the leaves of a new incarnation and
// then moves the copyset record to it. Leaves whose incarnation no record names are leftovers of a crash and are
// deleted at open. A copyset record is
//
//	version:1 (1)  flags:1 (0)  incarnation:8  index:8  term:8  state
//
// and a leaf is
//
//	version:1 (1)  flags:1 (0)  allocated:8 (bit i: block i)  runs…  crc:4 × allocated blocks
//	run: flags uvarint (0)  address uvarint  blocks uvarint; the runs cover the allocated blocks in order
//
// A flag that is not known makes the reader refuse the value: the flags of leaf and run are where shared extents
// (snapshots, clones) will be marked.
//
// # Image stream
//
// A copyset's content travels to another peer as a sequence of frames (see frame.go), each with a CRC32C, the blocks
// with their own checksums.
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
//	reclaimer.mu     freed blocks that wait
//	File.growMu      growth of the data file, held across fallocate
//	late.mu          deferred blocks
//	allocator.mu     the bitmap
package blockstore
