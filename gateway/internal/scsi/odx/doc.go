// Package odx is offloaded data transfer by tokens: the wire format of POPULATE TOKEN, WRITE USING TOKEN and RECEIVE ROD
// TOKEN INFORMATION (SBC-3 5.8 and 5.46, SPC-4 6.28), and the table of tokens. It does no I/O and has no clock.
//
// A token stands for data (a ROD, representation of data) as they were when it was made. The data are not kept: the token
// has a digest of each piece of them, and whoever writes by the token reads the source again and writes a piece only if it
// still has that digest. So no write of anybody, through whatever gateway, is ever taken for the data of the token, and
// the token is of the type "point in time copy, change vulnerable" (SPC-4 table 106).
//
// Parameter lists, big-endian, lengths in bytes:
//
//	POPULATE TOKEN      0 DATA LENGTH(2), of what follows  2 RTV(1) IMMED(0)  3 reserved  4 INACTIVITY TIMEOUT(4), seconds
//	                    8 ROD TYPE(4)  12 reserved(2)  14 RANGE DESCRIPTOR LENGTH(2)  16 ranges
//	WRITE USING TOKEN   0 DATA LENGTH(2), of what follows  2 DEL_TKN(1) IMMED(0)  3 reserved(5)  8 OFFSET INTO ROD(8), blocks
//	                   16 token(512)  528 reserved(6)  534 RANGE DESCRIPTOR LENGTH(2)  536 ranges
//	range               0 LBA(8)  8 BLOCKS(4)  12 reserved(4)
//
// A token:
//
//	 0 ROD TYPE(4)  4 reserved(2)  6 LENGTH(2), 01F8h  8 COPY MANAGER ROD TOKEN IDENTIFIER(8)
//	16 creator, a CSCD descriptor(32)  48 BYTES REPRESENTED(16)  64 reserved(32)
//	96 READ CAPACITY(16) without its first field(32)  128 random(64)  192 zero(320)
package odx
