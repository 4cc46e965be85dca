package scsi

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
)

// MODE SELECT(6), MODE SELECT(10) (SPC-4 6.11, 6.12). Package mode says what can be changed; a list that asks for
// anything else is refused whole. SP (save pages) needs pages that can be saved. What changes is told to all other nexuses
// by the unit attention 2A/01.

func modeSelect6(_ context.Context, a *attachment, c *Command) {
	const header = 4
	a.modeSelect(c, int(c.CDB[4]), header, func(list []byte) (descriptor int, long bool) {
		return int(list[3]), false
	})
}

func modeSelect10(_ context.Context, a *attachment, c *Command) {
	const header = 8
	a.modeSelect(c, int(c.u16(7)), header, func(list []byte) (descriptor int, long bool) {
		return int(binary.BigEndian.Uint16(list[6:])), list[4]&0x01 != 0
	})
}

// modeSelect judges a parameter list of n bytes: header, block descriptor, pages. parse reads the header.
func (a *attachment) modeSelect(c *Command, n, header int, parse func([]byte) (descriptor int, long bool)) {
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
	if n < header {
		a.fail(c, senseData{Code: ParameterListLengthError})
		return
	}
	descriptor, long := parse(list)
	at := header + descriptor
	if at > n {
		a.fail(c, senseData{Code: ParameterListLengthError})
		return
	}
	if !a.sameDescriptor(list[header:at], long) {
		a.refuse(c, InvalidFieldInParameters, dataField(header, -1))
		return
	}
	fault := a.unit.selectModes(a.nexus, list[at:])
	switch {
	case fault == nil:
	case fault.Cut:
		a.fail(c, senseData{Code: ParameterListLengthError})
	default:
		a.refuse(c, InvalidFieldInParameters, dataField(at+fault.At, fault.Bit))
	}
}

// selectModes takes over the settings that pages ask for by the nexus by, and tells the others if any changed.
func (u *LogicalUnit) selectModes(by *Nexus, pages []byte) *mode.Fault {
	u.mu.Lock()
	unit := u.modes()
	next, fault := unit.Select(pages)
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

// sameDescriptor tells whether a block descriptor asks for what is so. A number of blocks of 0 or all ones means "as
// it is" (SBC-3 6.4.2).
func (a *attachment) sameDescriptor(d []byte, long bool) bool {
	if len(d) == 0 {
		return true
	}
	var blocks, length, all uint64
	switch {
	case !long && len(d) == 8:
		blocks, all = uint64(binary.BigEndian.Uint32(d)), math.MaxUint32
		length = uint64(binary.BigEndian.Uint32(d[4:]) & 0xFFFFFF)
	case long && len(d) == 16:
		blocks, all = binary.BigEndian.Uint64(d), math.MaxUint64
		length = uint64(binary.BigEndian.Uint32(d[12:]))
	default:
		return false
	}
	return length == uint64(a.unit.BlockLength()) && (blocks == 0 || blocks == all || blocks == a.unit.Blocks())
}
