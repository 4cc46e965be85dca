// Package disk is what lies below the extent maps of a block store: the data file with its allocator (File), the index
// (Index, a Pebble store without a log of its own), the file that says whose disk it is (Header), and the memory of the
// failure after which nothing may be written any more (Poison). The package comment of blockstore lists the locks.
//
// IDENTITY, written to IDENTITY.tmp, synced and renamed (integers are little endian):
//
//	 0  8  magic "ashlarbs"
//	 8  2  format version, 2: version 1 had no versions of volumes
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
package disk
