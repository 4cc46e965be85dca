package scsi

import (
	"encoding/binary"
	"math"
)

// Mode page codes (SPC-4 7.5, SBC-3 6.4).
const (
	pageCaching        = 0x08
	pageControl        = 0x0A
	pagePowerCondition = 0x1A
	pageExceptions     = 0x1C // informational exceptions control
	pageAll            = 0x3F
	subpageAll         = 0xFF
)

// Device specific parameter of the mode parameter header (SBC-3 6.4.1).
const (
	modeWriteProtected = 0x80 // WP
	modeDPOFUA         = 0x10 // DPO and FUA are accepted
)

// modePages are the pages in the order in which MODE SENSE sends them. There are no subpages but 00h.
var modePages = [...]byte{pageCaching, pageControl, pagePowerCondition, pageExceptions}

// appendModePage appends the current values of a page, which are also the default ones. With changeable it appends
// the mask of what MODE SELECT may change instead: nothing. An unknown page appends nothing.
//
//	caching             08 12  WCE=0: a write that was answered is durable        20 bytes
//	control             0A 0A  TST=001b, D_SENSE, unrestricted reordering         12 bytes
//	power condition     1A 26  no timers                                          40 bytes
//	exceptions control  1C 0A  DEXCPT: nothing is reported                        12 bytes
func (u *LogicalUnit) appendModePage(p []byte, page byte, changeable bool) []byte {
	start := len(p)
	switch page {
	case pageCaching:
		p = append(p, make([]byte, 20)...)
	case pageControl:
		p = append(p, make([]byte, 12)...)
		if !changeable {
			// TST: a task set for each nexus, so CLEAR TASK SET never reaches beyond one session.
			p[start+2] = 0x20
			if u.config.DescriptorSense {
				p[start+2] |= 0x04
			}
			p[start+3] = 0x10 // QUEUE ALGORITHM MODIFIER: commands may be reordered
			binary.BigEndian.PutUint16(p[start+8:], 0xFFFF)
		}
	case pagePowerCondition:
		p = append(p, make([]byte, 40)...)
	case pageExceptions:
		p = append(p, make([]byte, 12)...)
		if !changeable {
			p[start+2] = 0x08
		}
	default:
		return p
	}
	p[start], p[start+1] = page, byte(len(p)-start-2)
	return p
}

// appendBlockDescriptor appends the short (8 bytes) or long (16 bytes) LBA mode parameter block descriptor
// (SBC-3 6.4.2). A capacity that the short one can not hold is FFFFFFFFh.
func (u *LogicalUnit) appendBlockDescriptor(p []byte, long bool) []byte {
	if long {
		p = binary.BigEndian.AppendUint64(p, u.Blocks())
		p = append(p, 0, 0, 0, 0)
	} else {
		p = binary.BigEndian.AppendUint32(p, uint32(min(u.Blocks(), math.MaxUint32)))
	}
	return binary.BigEndian.AppendUint32(p, uint32(u.BlockLength()))
}
