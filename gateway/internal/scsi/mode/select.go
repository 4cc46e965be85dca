package mode

import "encoding/binary"

// Fault says what is wrong with a list of pages.
type Fault struct {
	// Cut: the list ends within a page. Then At and Bit say nothing.
	Cut bool
	// At is the byte of the list where the field begins that asks for what can not be, and Bit its most significant
	// bit, -1 if it is a whole byte or more.
	At, Bit int
}

// Select judges the pages of a MODE SELECT, all of list, and returns the settings that they ask for. Each page must be
// known and of its exact length, and what it says must be so already except for the settings. Nothing of a list
// with a Fault is meant to be done.
func (u Unit) Select(list []byte) (Settings, *Fault) {
	next := u.Now
	for at := 0; at < len(list); {
		g, fault := find(list, at)
		if fault != nil {
			return 0, fault
		}
		var current, mask [pageMax]byte
		g.append(current[:0], u, Current)
		g.append(mask[:0], u, Changeable)
		given := list[at : at+g.length]
		for i := g.header(); i < g.length; i++ {
			if (given[i]^current[i])&^mask[i] != 0 {
				return 0, &Fault{At: at + i, Bit: -1}
			}
		}
		for _, s := range g.settings {
			next &^= s.what
			if given[s.at]&s.bit != 0 {
				next |= s.what
			}
		}
		at += g.length
	}
	return next, nil
}

func (g *page) header() int {
	if g.subpage != 0 {
		return 4
	}
	return 2
}

// find returns the page at list[at:], which is there whole.
func find(list []byte, at int) (*page, *Fault) {
	p := list[at:]
	short := p[0]&0x40 == 0
	if len(p) < 2 || !short && len(p) < 4 {
		return nil, &Fault{Cut: true}
	}
	code, subpage, length, where := p[0]&0x3F, byte(0), int(p[1])+2, 1
	if !short {
		subpage, length, where = p[1], int(binary.BigEndian.Uint16(p[2:]))+4, 2
	}
	for i := range pages {
		g := &pages[i]
		if g.code != code || g.subpage != subpage || short != (g.subpage == 0) {
			continue
		}
		switch {
		case length != g.length:
			return nil, &Fault{At: at + where, Bit: 7}
		case len(p) < length:
			return nil, &Fault{Cut: true}
		}
		return g, nil
	}
	return nil, &Fault{At: at, Bit: 5}
}
