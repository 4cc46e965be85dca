package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
)

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
	fault := a.unit.selectModes(a.nexus, a.modeMedium(), list, ten)
	switch {
	case fault == nil:
	case fault.Cut:
		a.fail(c, senseData{Code: ParameterListLengthError})
	default:
		a.refuse(c, InvalidFieldInParameters, dataField(fault.At, fault.Bit))
	}
}

// selectModes takes over the settings that list asks for by the nexus by, and tells the others if any changed.
func (u *LogicalUnit) selectModes(by *Nexus, m mode.Medium, list []byte, ten bool) *mode.Fault {
	u.mu.Lock()
	unit := u.modes()
	next, fault := unit.SelectList(m, list, ten)
	if fault == nil {
		u.settings.Store(uint32(next))
	}
	u.mu.Unlock()
	if fault == nil && next != unit.Now {
		u.Attention(AttentionModeChanged, by)
	}
	return fault
}

// modes returns the logical unit as its mode pages describe it now.
func (u *LogicalUnit) modes() mode.Unit {
	return mode.Unit{
		Now: mode.Settings(u.settings.Load()), Default: u.defaultModes(),
		ImplicitALUA: u.config.TPGS&1 != 0, SenseMax: SenseMax,
	}
}

// defaultModes are the settings that a logical unit begins with and that a reset takes it back to.
func (u *LogicalUnit) defaultModes() mode.Settings {
	if u.config.DescriptorSense {
		return mode.DescriptorSense
	}
	return 0
}
