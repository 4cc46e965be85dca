// Package initiator is a small iSCSI initiator for the project's own tests and measurements.
//
// It shares no code with the target, so that an error in a codec does not hide by being made twice: its
// PDUs are built and read here from RFC 7143 section 11, with constant offsets into a 48-byte header.
//
//	byte 0     opcode, bit 6 = immediate delivery      bytes 16-19  initiator task tag (ITT)
//	byte 1     flags of the opcode, bit 7 = F          bytes 20-47  by opcode: tags, CmdSN or StatSN,
//	byte 4     TotalAHSLength, in words                             windows, offsets, or the CDB
//	bytes 5-7  DataSegmentLength                       then         data, padded to 4 bytes
//
// A Session is one connection at error recovery level 0: any number of commands in flight from any number
// of goroutines within the target's CmdSN window, immediate and unsolicited data, R2T, NOP, no digests, and
// no authentication (open-iscsi and libiscsi cover that). When the connection ends, every command in flight
// fails with an error that wraps ErrClosed; whether it took effect is then unknown.
package initiator
