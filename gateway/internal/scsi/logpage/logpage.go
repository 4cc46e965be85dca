// Package logpage makes the log pages of a disk (SPC-4 7.3, SBC-4 6.4). It has no state.
//
//	page       DS(7)=1 SPF(6) CODE | SUBPAGE | LENGTH(2) | parameters
//	parameter  CODE(2) | CONTROL=03h: a binary list, never saved | LENGTH | value
//
//	00     supported pages             00/FF  supported pages and subpages
//	0C     logical block provisioning  0D     temperature
//	2F     informational exceptions    nn/FF  the subpages of page nn
//
// A parameter of page 0C is a RESOURCE COUNT(4) in threshold sets, then SCOPE: 1 the logical unit's own, 2 shared.
package logpage

import (
	"encoding/binary"
	"math"
)

// Page codes.
const (
	Supported    = 0x00
	Provisioning = 0x0C
	Temperature  = 0x0D
	Exceptions   = 0x2F
	AllSubpages  = 0xFF
)

var codes = [...]byte{Supported, Provisioning, Temperature, Exceptions}

// Space is what a thinly provisioned volume uses, in threshold sets. What is not known is left out of the page.
type Space struct {
	// Used is allocated to the volume; Available may still be, from what all volumes of its pool share.
	Used, Available       uint64
	HasUsed, HasAvailable bool
}

// unknown is a temperature that is not told.
const unknown = 0xFF

// Parameter codes of the Logical Block Provisioning page (SBC-4 6.4.5).
const (
	parameterAvailable = 0x0001
	parameterUsed      = 0x0002
)

// Values of SCOPE.
const (
	scopeDedicated = 0x01
	scopeShared    = 0x02
)

// Fault says which field of the CDB asks for what is not there.
type Fault int

// Faults.
const (
	Fine       Fault = iota
	NoPage           // PAGE CODE
	NoSubpage        // SUBPAGE CODE
	BadPointer       // PARAMETER POINTER is beyond the last parameter
)

// Append appends a page with its parameters from pointer on.
func Append(p []byte, code, subpage byte, pointer uint16, space Space) ([]byte, Fault) {
	if !known(code) {
		return p, NoPage
	}
	if subpage != 0 && subpage != AllSubpages {
		return p, NoSubpage
	}
	start := len(p)
	p = append(p, 0x80|code, subpage, 0, 0)
	if subpage != 0 {
		p[start] |= 0x40
	}
	var last int
	switch {
	case subpage == AllSubpages:
		p = appendSubpages(p, code)
	case code == Supported:
		p = append(p, codes[:]...)
	default:
		p, last = appendParameters(p, code, pointer, space)
	}
	if int(pointer) > last {
		return p[:start], BadPointer
	}
	binary.BigEndian.PutUint16(p[start+2:], uint16(len(p)-start-4))
	return p, Fine
}

func known(code byte) bool {
	for _, c := range codes {
		if c == code {
			return true
		}
	}
	return false
}

// appendSubpages lists (page, subpage) of one page, or with Supported of all. FFh is a subpage of every page.
func appendSubpages(p []byte, code byte) []byte {
	for _, c := range codes {
		if code == Supported || code == c {
			p = append(p, c, 0, c, AllSubpages)
		}
	}
	return p
}

// appendParameters appends the parameters whose code is at least pointer, and returns the highest code that there is.
func appendParameters(p []byte, code byte, pointer uint16, space Space) (out []byte, last int) {
	add := func(number uint16, value ...byte) {
		last = int(number)
		if number >= pointer {
			p = binary.BigEndian.AppendUint16(p, number)
			p = append(p, 0x03, byte(len(value)))
			p = append(p, value...)
		}
	}
	switch code {
	case Provisioning:
		if space.HasAvailable {
			add(parameterAvailable, count(space.Available, scopeShared)...)
		}
		if space.HasUsed {
			add(parameterUsed, count(space.Used, scopeDedicated)...)
		}
	case Temperature:
		add(0, 0, unknown)
		add(1, 0, unknown)
	case Exceptions:
		add(0, 0, 0, unknown, 0) // no informational exception; no temperature
	}
	return p, last
}

// count is the value of a parameter of the Logical Block Provisioning page.
func count(n uint64, scope byte) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(min(n, math.MaxUint32)))
	return append(p, scope, 0, 0, 0)
}
