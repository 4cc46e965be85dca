// Package xcopy is the wire format of EXTENDED COPY(LID1) and of the RECEIVE COPY RESULTS service actions that belong to
// it (SPC-4 6.4 and 6.24 to 6.27): parameter lists in, parameter data out. It does no I/O and keeps nothing.
//
// The parameter list of EXTENDED COPY, big-endian, lengths in bytes:
//
//	 0 LIST IDENTIFIER   1 . STR(5) LIST ID USAGE(4..3) PRIORITY(2..0)   2 CSCD DESCRIPTOR LIST LENGTH(2)
//	 4 reserved(4)       8 SEGMENT DESCRIPTOR LIST LENGTH(4)            12 INLINE DATA LENGTH(4)
//	16 CSCD descriptors (copy source or copy destination), 32 bytes each, then segment descriptors, then inline data
//
//	CSCD, identification   E4 | LU ID TYPE(7..6) PERIPHERAL TYPE(4..0) | RELATIVE INITIATOR PORT(2)
//	                        4 CODE SET(3..0)  5 ASSOCIATION(5..4) TYPE(3..0)  6 reserved  7 DESIGNATOR LENGTH
//	                        8 DESIGNATOR(20)  28 PAD(2)  29 DISK BLOCK LENGTH(3)
//	segment, blocks        02 | DC(1) CAT(0) | 0018h | SOURCE(2) DESTINATION(2) | reserved(2) BLOCKS(2)
//	                       12 SOURCE LBA(8)  20 DESTINATION LBA(8)
//	segment, with offsets  0A | CAT(0) | 001Ch | SOURCE(2) DESTINATION(2) | BYTES(4)
//	                       12 SOURCE LBA(8)  20 DESTINATION LBA(8)  28 SOURCE OFFSET(2)  30 DESTINATION OFFSET(2)
//
// SOURCE and DESTINATION are indices of the CSCD list, or Self.
package xcopy
