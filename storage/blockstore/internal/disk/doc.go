// Package disk is what lies below the extent maps of a block store: the data file with its allocator (File), the index
// (Index, a Pebble store without a log of its own), the file that says whose disk it is (Header), and the memory of the
// failure after which nothing may be written any more (Poison). The package comment of blockstore draws the formats and
// lists the locks.
package disk
