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
// A token is known by its random part to the gateway that made it. To another one, and after a restart, it says itself what it
// stands for: of which ranges, and a digest of the digests of all pieces (the root). Whoever presents such a token must see the
// source through that gateway; it is read as a whole first, and if it has that root the token is one of that gateway's too. So a
// token lets nobody read what he can not read anyway, there is no secret in it, and who forges one can fool only himself. It ends
// its timeout after it was made, by the wall clock. One whose ranges have no place is good at its gateway only.
//
// A token:
//
//	 0 ROD TYPE(4)  4 reserved(2)  6 LENGTH(2), 01F8h  8 COPY MANAGER ROD TOKEN IDENTIFIER(8)
//	16 creator, a CSCD descriptor(32)  48 BYTES REPRESENTED(16)  64 reserved(32)
//	96 READ CAPACITY(16) without its first field(32)  128 random(64)
//	192 version(1)  193 reserved(1)  194 RANGES(2), 0: none are told  196 made(8), seconds since 1970  204 timeout(4), seconds
//	208 root(32)  240 ranges(240): { LBA uvarint, BLOCKS uvarint }, zero behind  480 first 32 bytes of SHA-256 of all before
package odx
