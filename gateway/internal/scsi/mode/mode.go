// Package mode holds the mode pages of a disk (SPC-4 7.5, SBC-4 6.5): what MODE SENSE reports and MODE SELECT changes. It
// has no state of its own; Unit is a value.
//
//	page      PS(7) SPF(6)=0 CODE | LENGTH    | parameters
//	subpage   PS(7) SPF(6)=1 CODE | SUBPAGE   | LENGTH(2) | parameters
//
//	caching             08     12    WCE=0: a write that was answered is durable            20 bytes
//	control             0A     0A    TST=001b, D_SENSE, SWP, unrestricted reordering        12 bytes
//	control extension   4A 01  001C  IALUAE, MAXIMUM SENSE DATA LENGTH                      32 bytes
//	power condition     1A     26    no timers                                              40 bytes
//	exceptions control  1C     0A    DEXCPT: nothing is reported                            12 bytes
//
// What can be changed are D_SENSE and SWP. Where they can be saved the Control page has PS=1, and a logical unit reset takes them
// back to their saved values; else to their defaults.
package mode

import (
	"encoding/binary"

	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// Page codes and subpage codes.
const (
	Caching          = 0x08
	Control          = 0x0A
	PowerCondition   = 0x1A
	Exceptions       = 0x1C // informational exceptions control
	All              = 0x3F
	ControlExtension = 0x01 // subpage of Control
	AllSubpages      = 0xFF
)

// Settings are what MODE SELECT can change, one bit each.
type Settings = reservation.Settings

// The settings.
const (
	DescriptorSense = reservation.DescriptorSense
	WriteProtect    = reservation.WriteProtect
)

// Values says which values of a page are meant, as the PC field of MODE SENSE does (SPC-4 6.13.1).
type Values byte

// Kinds of values.
const (
	Current Values = iota
	Changeable
	Default
	Saved
)

// Unit is a logical unit as its mode pages describe it.
type Unit struct {
	Now, Default, Saved Settings
	// Saves: settings can be saved.
	Saves    bool
	SenseMax byte // longest sense data, in bytes
}

// page is one page or subpage.
type page struct {
	code, subpage byte
	length        int // with its header
	fill          func(u Unit, s Settings, p []byte)
	// settings are where the changeable bits are.
	settings []setting
}

// setting is the place of a changeable bit in its page.
type setting struct {
	at   int
	bit  byte
	what Settings
}

// pages are in the order in which MODE SENSE sends them.
var pages = [...]page{
	{code: Caching, length: 20},
	{code: Control, length: 12, fill: fillControl, settings: []setting{{2, 0x04, DescriptorSense}, {4, 0x08, WriteProtect}}},
	{code: Control, subpage: ControlExtension, length: 32, fill: fillControlExtension},
	{code: PowerCondition, length: 40},
	{code: Exceptions, length: 12, fill: func(_ Unit, _ Settings, p []byte) { p[2] = 0x08 }},
}

// pageMax is the length of the longest page.
const pageMax = 40

// fillControl writes the Control page (SPC-4 7.5.8).
func fillControl(_ Unit, s Settings, p []byte) {
	p[2] = 0x20 // TST: a task set for each nexus, so CLEAR TASK SET never reaches beyond one session
	p[3] = 0x10 // QUEUE ALGORITHM MODIFIER: commands may be reordered
	binary.BigEndian.PutUint16(p[8:], 0xFFFF)
	if s&DescriptorSense != 0 {
		p[2] |= 0x04
	}
	if s&WriteProtect != 0 {
		p[4] |= 0x08
	}
}

// fillControlExtension writes the Control Extension subpage (SPC-4 7.5.9).
func fillControlExtension(u Unit, _ Settings, p []byte) {
	p[4] = 0x01 // IALUAE: asymmetric access states change on their own
	p[6] = u.SenseMax
}

// append appends the values of g.
func (g *page) append(p []byte, u Unit, v Values) []byte {
	start := len(p)
	p = append(p, make([]byte, g.length)...)
	d := p[start:]
	switch {
	case v == Changeable:
		for _, s := range g.settings {
			d[s.at] |= s.bit
		}
	case g.fill != nil && v == Default:
		g.fill(u, u.Default, d)
	case g.fill != nil && v == Saved:
		g.fill(u, u.Saved, d)
	case g.fill != nil:
		g.fill(u, u.Now, d)
	}
	d[0] = g.code
	if u.Saves && len(g.settings) > 0 {
		d[0] |= 0x80
	}
	if g.subpage != 0 {
		d[0] |= 0x40
		d[1] = g.subpage
		binary.BigEndian.PutUint16(d[2:], uint16(g.length-4))
	} else {
		d[1] = byte(g.length - 2)
	}
	return p
}

// Append appends the pages that MODE SENSE asks for by page code and subpage code. It appends nothing if there is no
// such page.
func (u Unit) Append(p []byte, code, subpage byte, v Values) []byte {
	if code == All && subpage != 0 && subpage != AllSubpages { // reserved (SPC-4 6.13.1)
		return p
	}
	for i := range pages {
		g := &pages[i]
		if (code == All || code == g.code) && (subpage == AllSubpages || subpage == g.subpage) {
			p = g.append(p, u, v)
		}
	}
	return p
}

// Known tells whether there is any page of that code.
func Known(code byte) bool {
	for i := range pages {
		if code == All || code == pages[i].code {
			return true
		}
	}
	return false
}
