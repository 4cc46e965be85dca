package pdu

import "fmt"

// ReservedTag is the value of an ITT or TTT that names nothing.
const ReservedTag = 0xffffffff

// ITT is an Initiator Task Tag: the initiator's name for a task, unique within a session while the task lives.
type ITT uint32

// IsReserved reports whether t names no task.
func (t ITT) IsReserved() bool { return t == ReservedTag }

func (t ITT) String() string { return fmt.Sprintf("%#08x", uint32(t)) }

// TTT is a Target Transfer Tag: the target's name for a sequence that it asked for.
type TTT uint32

// IsReserved reports whether t names nothing: in a Data-Out it says that the data is unsolicited.
func (t TTT) IsReserved() bool { return t == ReservedTag }

func (t TTT) String() string { return fmt.Sprintf("%#08x", uint32(t)) }

// CID is a connection's number within its session, chosen by the initiator.
type CID uint16

// TSIH is the target's handle of a session. Zero in a Login Request asks for a new session.
type TSIH uint16

// ISID is the initiator's part of a session's name, RFC 7143 section 11.12.5.
//
//	byte 0, bits 7-6: T = 0 OUI, 1 enterprise number, 2 random, 3 reserved
type ISID [6]byte

// ISIDType is the format of an ISID.
type ISIDType uint8

// The formats of an ISID.
const (
	ISIDOUI ISIDType = iota
	ISIDEnterprise
	ISIDRandom
	ISIDReserved
)

// Type returns the format of i.
func (i ISID) Type() ISIDType { return ISIDType(i[0] >> 6) }

func (i ISID) String() string { return fmt.Sprintf("%012x", i[:]) }
