package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
)

// MODE SELECT(6), MODE SELECT(10) (SPC-4 6.11, 6.12). No parameter can be changed, so a list that says what is
// already so succeeds and any other one is refused whole. SP (save pages) needs pages that can be saved.

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
	for at < n {
		if at = a.samePage(c, list, at); at < 0 {
			return
		}
	}
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

// samePage compares the page at list[at:] with the current one and returns where the next one begins, or -1 when it
// ended c.
func (a *attachment) samePage(c *Command, list []byte, at int) int {
	page := list[at:]
	if len(page) < 2 {
		a.fail(c, senseData{Code: ParameterListLengthError})
		return -1
	}
	var scratch [64]byte
	current := a.unit.appendModePage(scratch[:0], page[0]&0x3F, false)
	switch subpage := page[0]&0x40 != 0; {
	case subpage || len(current) == 0:
		a.refuse(c, InvalidFieldInParameters, dataField(at, 5))
		return -1
	case page[1] != current[1]:
		a.refuse(c, InvalidFieldInParameters, dataField(at+1, 7))
		return -1
	case len(page) < len(current):
		a.fail(c, senseData{Code: ParameterListLengthError})
		return -1
	}
	if !bytes.Equal(page[2:len(current)], current[2:]) {
		i := 2
		for page[i] == current[i] {
			i++
		}
		a.refuse(c, InvalidFieldInParameters, dataField(at+i, -1))
		return -1
	}
	return at + len(current)
}
