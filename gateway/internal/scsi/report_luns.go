package scsi

import (
	"context"
	"encoding/binary"
)

// reportLUNs is REPORT LUNS (SPC-4 6.33) for a LUN that is mapped.
func reportLUNs(_ context.Context, a *attachment, c *Command) {
	if field, bad := a.nexus.replyLUNs(c); bad {
		a.refuse(c, InvalidFieldInCDB, field)
	}
}

// reportLUNsHeader is the length of the list header, and the least allocation length that is allowed is twice that.
const reportLUNsHeader = 8

// replyLUNs answers REPORT LUNS. SELECT REPORT 00h and 02h list every mapped LUN, 01h asks for well known logical
// units, of which there are none. It clears REPORTED LUNS DATA HAS CHANGED on all of them. It returns the field that
// is wrong, if one is.
func (n *Nexus) replyLUNs(c *Command) (field fieldPointer, bad bool) {
	selectReport, allocation := c.CDB[2], c.u32(6)
	if selectReport > 2 {
		return cdbField(2, 7), true
	}
	if allocation < 2*reportLUNsHeader {
		return cdbField(6, -1), true
	}
	var attachments []*attachment
	if selectReport != 1 {
		// First nothing waits, then the list is taken: a change in between is in the list and told once more.
		for _, a := range n.view.Load().sorted {
			a.Attentions.Drop(AttentionLUNsChanged)
		}
		attachments = n.view.Load().sorted
	}
	list := append(c.small[:0], make([]byte, reportLUNsHeader)...)
	binary.BigEndian.PutUint32(list, uint32(8*len(attachments)))
	for _, a := range attachments {
		list = binary.BigEndian.AppendUint64(list, uint64(FlatLUN(a.LUN)))
	}
	c.reply(list, uint64(allocation))
	return fieldPointer{}, false
}
