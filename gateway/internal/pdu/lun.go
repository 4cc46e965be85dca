package pdu

import (
	"encoding/hex"
	"fmt"
	"strconv"
)

// MaxLUNNumber is the largest number that a single-level LUN of the flat format can hold.
const MaxLUNNumber = 1<<14 - 1

// LUN is a logical unit number as it is on the wire, SAM-5 section 4.7. Single-level LUNs use the first two bytes:
//
//	peripheral device addressing   00bb bbbb  LLLL LLLL   bus b = 0, LUN 0..255
//	flat space addressing          01LL LLLL  LLLL LLLL   LUN 0..16383
type LUN [8]byte

// LUNOf returns the LUN for number n: peripheral format up to 255, flat above. It panics if n > MaxLUNNumber.
func LUNOf(n uint16) LUN {
	switch {
	case n < 256:
		return LUN{1: byte(n)}
	case n <= MaxLUNNumber:
		return LUN{0: 0x40 | byte(n>>8), 1: byte(n)}
	}
	panic(fmt.Sprintf("pdu: LUN %d", n))
}

// Number returns the number that l stands for; ok is false if l is not a single-level LUN of one of the two formats.
func (l LUN) Number() (n uint16, ok bool) {
	if l[2]|l[3]|l[4]|l[5]|l[6]|l[7] != 0 {
		return 0, false
	}
	switch l[0] >> 6 {
	case 0:
		return uint16(l[1]), l[0] == 0
	case 1:
		return uint16(l[0]&0x3f)<<8 | uint16(l[1]), true
	}
	return 0, false
}

func (l LUN) String() string {
	if n, ok := l.Number(); ok {
		return strconv.Itoa(int(n))
	}
	return hex.EncodeToString(l[:])
}
