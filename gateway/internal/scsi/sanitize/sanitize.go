// Package sanitize knows what a SANITIZE command asks for (SBC-4 5.34) and how far it is. It has no state.
//
// The parameter list of the service action OVERWRITE:
//
//	0 INVERT(7) TEST(6..5) OVERWRITE COUNT(4..0)  1 reserved  2 PATTERN LENGTH(2)  4 INITIALIZATION PATTERN
//
// The pattern, 1 byte to a logical block, is repeated to fill each logical block; what does not fit at its end is cut. It
// is written as often as OVERWRITE COUNT says, with INVERT every second time inverted.
package sanitize

import (
	"encoding/binary"
	"math/bits"
)

// Service actions.
const (
	Overwrite   = 0x01
	BlockErase  = 0x02
	ExitFailure = 0x1F
)

// header is the length of the parameter list before the pattern, in bytes.
const header = 4

// Order is what one SANITIZE asks for. The zero Order erases blocks: each is unmapped and reads as zeroes.
type Order struct {
	// Passes is how often all of the medium is overwritten; 0: it is erased instead.
	Passes int
	// Block is what is written to every logical block; nil when it is erased.
	Block []byte
	// Invert: each pass writes the inverse of what the one before wrote.
	Invert bool
	// Exit: after a failure EXIT FAILURE MODE is allowed (AUSE).
	Exit bool
}

// Fits tells whether the parameter list of an OVERWRITE may have that length, for logical blocks of block bytes.
func Fits(length, block int) bool { return length > header && length <= header+block }

// ParseOverwrite takes the order from a parameter list that Fits. When it can not be, ok is false and at and bit say where
// in the list.
func ParseOverwrite(list []byte, block int) (o Order, at, bit int, ok bool) {
	pattern := list[header:]
	length := int(binary.BigEndian.Uint16(list[2:]))
	switch {
	case list[0]&0x60 != 0:
		return Order{}, 0, 6, false
	case list[0]&0x1F == 0:
		return Order{}, 0, 4, false
	case list[1] != 0:
		return Order{}, 1, 7, false
	case length == 0 || length != len(pattern):
		return Order{}, 2, 7, false
	}
	o = Order{Passes: int(list[0] & 0x1F), Invert: list[0]&0x80 != 0, Block: make([]byte, block)}
	for n := copy(o.Block, pattern); n < block; {
		n += copy(o.Block[n:], pattern)
	}
	return o, 0, 0, true
}

// Fill fills p, which begins where a logical block does, with what pass (0 is the first) writes.
func (o Order) Fill(p []byte, pass int) {
	if len(p) == 0 {
		return
	}
	n := copy(p, o.Block)
	if o.Invert && pass%2 != 0 {
		for i := range p[:n] {
			p[i] = ^p[i]
		}
	}
	for n < len(p) {
		n += copy(p[n:], p[:n])
	}
}

// State is what a volume's last SANITIZE came to.
type State byte

// States.
const (
	Idle    State = iota // none, or it is complete
	Running              // nothing else may use the medium
	Failed               // it ended with an error, so the medium is not to be used
)

// Status is how things are with a volume.
type Status struct {
	State State
	// Progress is how much is done while Running, in 65536th.
	Progress uint16
	// Exit: EXIT FAILURE MODE is allowed after Failed.
	Exit bool
}

// ProgressOf returns how much done of total, in bytes, is in 65536th; at most 65535.
func ProgressOf(done, total uint64) uint16 {
	if done >= total {
		return 65535
	}
	hi, lo := bits.Mul64(done, 65536)
	q, _ := bits.Div64(hi, lo, total)
	return uint16(q)
}
