// Package extent is the map from the blocks of chunks to the blocks of the data file, in memory and as the index holds
// it: the leaf with its encoding, the copyset record, the versions of a volume, and the keys. It does no I/O.
//
// The keys of the index are big endian, so that they sort by number; the values are little endian:
//
//	0x01                                                      store record: version, store
//	0x02 copyset:8                                            copyset record
//	0x03 incarnation:8 volume:8 chunk:4 leaf:4 version:8      leaf: the map of 64 blocks (256 KiB) of a chunk
//	0x04 incarnation:8 volume:8                               versions of a volume that has or had any
//
// An incarnation is one life of a copyset's content: installing an image writes the leaves of a new incarnation and
// then moves the copyset record to it; when nobody reads them any more, those of the old one are deleted. Leaves whose
// incarnation no record names are leftovers of a crash and are deleted at open. The version in a leaf's key is the newest of the volume's versions that has the leaf, less one; that of the
// leaf of now, the head, is 0xffffffffffffffff. So the leaves of one place follow each other from the oldest to the head's.
//
//	copyset record  version:1 (1)  flags:1 (0)  incarnation:8  index:8  term:8  state
//	versions        version:1 (1)  flags:1 (0)  last that was ever taken:8  number:8 of each that there is, ascending
//	leaf            version:1 (2)  flags:1  allocated:8 (bit i: block i)  [born:8  shared:8]  runs…  crc:4 × allocated blocks
//	run             flags uvarint (0)  address uvarint  blocks uvarint; the runs cover the allocated blocks in order
//
// Flag 1 of a leaf says that born and shared are there, else they are 0. Born is the last version that had been taken when the
// leaf was made: the versions above it, up to that of the key, have the leaf. Bit i of shared says that the leaf before it, at the
// same place, has block i too, at the same address; the oldest of the leaves that have a block owns it. A flag that is not known
// makes the reader refuse the value.
package extent
