// Package sam has the values of the SCSI architecture (SAM-5) that commands and transports share: logical unit numbers, status
// codes and task management functions.
package sam

import "fmt"

// LUN is the 8-byte logical unit number of a command as a big-endian number (SAM-5 4.7), as it stands on the wire:
//
//	single level, peripheral  00 nn 00 00 00 00 00 00     LUN 0..255
//	single level, flat        40+hh ll 00 00 00 00 00 00  LUN 0..16383
//
// Two encodings of one number name the same logical unit: compare Number, not LUN.
type LUN uint64

// LUNMax is the highest LUN that can be mapped.
const LUNMax = 1<<14 - 1

// FlatLUN encodes n, 0..LUNMax: peripheral addressing below 256, flat space addressing above.
func FlatLUN(n uint16) LUN {
	if n < 256 {
		return LUN(n) << 48
	}
	return LUN(n&LUNMax|0x4000) << 48
}

// Number decodes a single level LUN. ok is false for any other form; no logical unit has such a LUN.
func (l LUN) Number() (n uint16, ok bool) {
	if l<<16 != 0 {
		return 0, false
	}
	top := uint16(l >> 48)
	switch top >> 14 {
	case 0: // peripheral device addressing; a bus identifier other than zero is not ours
		return top, top < 256
	case 1: // flat space addressing
		return top & LUNMax, true
	}
	return 0, false
}

// String returns the number, or the 8 bytes in hexadecimal.
func (l LUN) String() string {
	if n, ok := l.Number(); ok {
		return fmt.Sprintf("%d", n)
	}
	return fmt.Sprintf("%016Xh", uint64(l))
}
