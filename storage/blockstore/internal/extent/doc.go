// Package extent is the map from the blocks of chunks to the blocks of the data file, in memory and as the index holds
// it: the leaf with its encoding, the copyset record, and the keys. The package comment of blockstore draws the format.
// It does no I/O.
package extent
