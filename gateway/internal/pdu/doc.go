// Package pdu is the codec of the iSCSI protocol data units of RFC 7143 section 11, with the additions of RFC 7144.
// It imports only the standard library, does no I/O and keeps no state.
//
// Every PDU is a basic header segment (BHS) of 48 bytes and what the BHS announces:
//
//	+---------------+------------------+---------------+---------------+----------+-------------+
//	| BHS, 48 bytes | AHS, 4n bytes    | header digest | data segment  | padding  | data digest |
//	|               | n=TotalAHSLength | 0 or 4 bytes  | 0..2^24-1     | 0..3     | 0 or 4      |
//	+---------------+------------------+---------------+---------------+----------+-------------+
//
// The BHS, big endian; fields marked * depend on the opcode:
//
//	byte  0          1                2      3      4               5 .. 7
//	     +----------+----------------+------+------+---------------+------------------+
//	   0 |.|I|opcode| F | *          | *    | *    | TotalAHSLength| DataSegmentLength|
//	     +----------+----------------+------+------+---------------+------------------+
//	   8 | LUN, or * (ISID and TSIH in login PDUs)                                    |
//	     +-----------------------------------------+----------------------------------+
//	  16 | ITT (Initiator Task Tag)                | *  (TTT, CID, referenced tag)    |
//	     +-----------------------------------------+----------------------------------+
//	  24 | CmdSN (to the target) or StatSN         | ExpStatSN or ExpCmdSN            |
//	     +-----------------------------------------+----------------------------------+
//	  32 | * or MaxCmdSN                           | *                                |
//	     +-----------------------------------------+----------------------------------+
//	  40 | *                                       | *                                |
//	     +-----------------------------------------+----------------------------------+
//
// Receiving goes in three steps, so that nothing is allocated on the word of a peer alone:
// read 48 bytes into a Header; Layout says how many bytes of each part follow, or refuses; read those and hand them
// to the digest checks and to the ParseXxx of the opcode. Sending is split likewise: AppendHeader writes the BHS
// (and AHS), the data segment is sent from wherever it lies, and Digest and Padding make what goes around it.
//
// Byte slices in PDU structs are borrowed: ParseXxx keeps references into the ahs and data it was given, and they are
// valid exactly as long as those. No function here keeps a slice after it returned, except in the value it returns.
package pdu
