package scsi

import "context"

// MODE SELECT(6), MODE SELECT(10) (SPC-4 6.11, 6.12). Package mode says what can be changed; a list that asks for
// anything else is refused whole. SP (save pages) needs pages that can be saved. What changes is told to all other nexuses
// by the unit attention 2A/01.

func modeSelect6(_ context.Context, a *attachment, c *Command) { a.modeSelect(c, int(c.CDB[4]), false) }

func modeSelect10(_ context.Context, a *attachment, c *Command) { a.modeSelect(c, int(c.u16(7)), true) }

// modeSelect judges a parameter list of n bytes; ten says that it is that of MODE SELECT(10).
func (a *attachment) modeSelect(c *Command, n int, ten bool) {
	switch pf, sp := c.CDB[1]&0x10 != 0, c.CDB[1]&0x01 != 0; {
	case sp:
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 0))
		return
	case n == 0:
		return
	case !pf:
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 4))
		return
	}
	list, ok := a.parameterList(c, n)
	if !ok {
		return
	}
	fault := a.unit.SelectModes(&a.nexus.peer, a.modeMedium(), list, ten)
	switch {
	case fault == nil:
	case fault.Cut:
		a.fail(c, senseData{Code: ParameterListLengthError})
	default:
		a.refuse(c, InvalidFieldInParameters, dataField(fault.At, fault.Bit))
	}
}
