package scsi

import "context"

// startStopUnit is START STOP UNIT (SBC-3 5.25). Starting, stopping and the power conditions of the standard succeed
// and change nothing: a stop that one host asks for must not fail the paths of another. LOEJ is refused by the
// table, for the medium is not removable.
func startStopUnit(_ context.Context, a *attachment, c *Command) {
	switch c.CDB[4] >> 4 { // POWER CONDITION
	case 0x0, 0x1, 0x2, 0x3, 0x7, 0xA, 0xB:
	default:
		a.refuse(c, InvalidFieldInCDB, cdbField(4, 7))
	}
}
