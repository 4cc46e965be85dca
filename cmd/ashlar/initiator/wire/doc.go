// Package wire is an iSCSI initiator that sends whatever it is told to, right or wrong, over a real socket. It is what
// "ashlar selftest" asks a target with, and what the protocol checks of the tests (scripts/e2e/initiator/checks) are written
// with.
//
// It shares no code with the target: an error in a codec does not hide by being made twice. A PDU is its 48-byte basic
// header segment with accessors by byte offset (RFC 7143 section 11.2.1), its additional header segments and its data;
// nothing that can be put into one is refused here.
//
//	pdu.go      PDU and one constructor for each PDU of an initiator
//	conn.go     Conn: frames on a socket, with padding and CRC32C digests
//	text.go     key=value text
//	chap.go     CHAP responses
//	host.go     Host: a Conn with sequence numbers; login step by step or at once
//	command.go  Host.Do: a SCSI command with all its data
//	sense.go    sense data
//
// A Host belongs to one goroutine. Every wait has the limit of Conn.Timeout.
package wire
