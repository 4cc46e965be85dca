// Package load writes, reads and discards blocks of a logical unit through the test initiator, and knows at
// every moment what each block must hold.
//
// A block is 4096 bytes and says where it belongs and which write made it:
//
//	0   magic      8 bytes, big endian
//	8   seed       of the run
//	16  block      number within the logical unit, in 4096-byte units
//	24  version    of the write; every write of a run has a version of its own
//	32  filling    words of a generator seeded with block and version
//
// A block that was never written, or was discarded, is all zero: version 0. An operation whose connection
// ended has an unknown outcome: after the reconnect its blocks are read and must hold either what they held
// before or what the operation would have made, all of them alike when it was a write within one chunk; what
// was read is from then on the truth. So a write that lands after a later session has looked is found, like a
// lost one, a torn one, or one in the wrong place.
package load
