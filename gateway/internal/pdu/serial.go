package pdu

// Serial numbers wrap around and are compared as RFC 1982 says with SERIAL_BITS = 32 (RFC 7143 section 4.2.2.1): a is
// less than b if b can be reached from a by adding 1 to 2^31-1. Two numbers exactly 2^31 apart have no order, and then
// neither is less than the other.

func serialLess(a, b uint32) bool {
	d := b - a
	return d != 0 && d < 1<<31
}

// CmdSN numbers the commands of a session.
type CmdSN uint32

// Less reports whether s comes before t.
func (s CmdSN) Less(t CmdSN) bool { return serialLess(uint32(s), uint32(t)) }

// LessEq reports whether s is t or comes before it.
func (s CmdSN) LessEq(t CmdSN) bool { return s == t || s.Less(t) }

// Next returns the number after s.
func (s CmdSN) Next() CmdSN { return s + 1 }

// Add returns the number n after s; n must be below 2^31 for the order to hold.
func (s CmdSN) Add(n uint32) CmdSN { return s + CmdSN(n) }

// Sub returns how many numbers s is after t; negative if it comes before.
func (s CmdSN) Sub(t CmdSN) int32 { return int32(s - t) }

// InWindow reports whether s is between first and last, both included; an empty window is last = first-1.
func (s CmdSN) InWindow(first, last CmdSN) bool { return first.LessEq(s) && s.LessEq(last) }

// StatSN numbers the responses of a connection.
type StatSN uint32

// Less reports whether s comes before t.
func (s StatSN) Less(t StatSN) bool { return serialLess(uint32(s), uint32(t)) }

// LessEq reports whether s is t or comes before it.
func (s StatSN) LessEq(t StatSN) bool { return s == t || s.Less(t) }

// Next returns the number after s.
func (s StatSN) Next() StatSN { return s + 1 }

// Add returns the number n after s; n must be below 2^31 for the order to hold.
func (s StatSN) Add(n uint32) StatSN { return s + StatSN(n) }

// Sub returns how many numbers s is after t; negative if it comes before.
func (s StatSN) Sub(t StatSN) int32 { return int32(s - t) }

// DataSN numbers the Data-In PDUs of a command, or the Data-Out PDUs of one sequence, from 0.
type DataSN uint32

// Less reports whether s comes before t.
func (s DataSN) Less(t DataSN) bool { return serialLess(uint32(s), uint32(t)) }

// LessEq reports whether s is t or comes before it.
func (s DataSN) LessEq(t DataSN) bool { return s == t || s.Less(t) }

// Next returns the number after s.
func (s DataSN) Next() DataSN { return s + 1 }

// Sub returns how many numbers s is after t; negative if it comes before.
func (s DataSN) Sub(t DataSN) int32 { return int32(s - t) }

// R2TSN numbers the R2Ts of a command, from 0.
type R2TSN uint32

// Less reports whether s comes before t.
func (s R2TSN) Less(t R2TSN) bool { return serialLess(uint32(s), uint32(t)) }

// LessEq reports whether s is t or comes before it.
func (s R2TSN) LessEq(t R2TSN) bool { return s == t || s.Less(t) }

// Next returns the number after s.
func (s R2TSN) Next() R2TSN { return s + 1 }
