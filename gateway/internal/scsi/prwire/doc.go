// Package prwire is the wire format of PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16) and of the TransportIDs of iSCSI
// (SPC-4 7.6.4.6). It is a codec: what the fields mean is package storage/reservation's.
//
// The parameter list of PERSISTENT RESERVE OUT, but for REGISTER AND MOVE:
//
//	0  RESERVATION KEY(8) | 8  SERVICE ACTION RESERVATION KEY(8) | 16 obsolete(4)
//	20 SPEC_I_PT(3) ALL_TG_PT(2) APTPL(0) | 21 reserved | 22 obsolete(2)
//	24 LENGTH(4) | 28 TransportIDs                         with SPEC_I_PT only
//
// and that of REGISTER AND MOVE:
//
//	0  RESERVATION KEY(8) | 8  SERVICE ACTION RESERVATION KEY(8) | 16 reserved
//	17 UNREG(1) APTPL(0) | 18 RELATIVE TARGET PORT IDENTIFIER(2) | 20 LENGTH(4) | 24 TransportID
//
// A TransportID of iSCSI, padded with zeroes to a multiple of 4 and of at least 24 bytes:
//
//	0  FORMAT(7..6) PROTOCOL IDENTIFIER(3..0) = 5 | 1 reserved | 2 ADDITIONAL LENGTH(2) | 4 name 00 …
//
// where name is that of an initiator device (format 00b) or of a port: "NAME,i,0x" and 12 hexadecimal digits (format 01b).
//
// What comes from an initiator is bounded before it is looked at: a name by nameMax, a list by TransportIDsMax, each by the
// bytes that are really there.
package prwire
