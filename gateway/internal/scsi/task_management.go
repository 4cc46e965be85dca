package scsi

// What task management functions ask of the device server, SAM-5 section 7. Commands are the transport's.

// PendingAttention returns the unit attention that the next command to lun would report, and how many wait. It returns
// NoSense and 0 when none does, and for a lun that is absent (QUERY ASYNCHRONOUS EVENT, SAM-5 section 7.10).
func (n *Nexus) PendingAttention(lun LUN) (code SenseCode, waiting int) {
	if a := n.lookup(lun); a != nil {
		return a.Attentions.Peek()
	}
	return NoSense, 0
}

// Untold takes back the outcome of a command that Execute has ended and of which the initiator is told nothing, because it was
// aborted after that: the unit attention that it reports, if it reports one, waits for the next command.
func (n *Nexus) Untold(c *Command) {
	code := c.attention
	c.attention = NoSense
	if a := n.lookup(c.LUN); a != nil && code != NoSense {
		a.Attentions.Restore(code)
	}
}

// ResetNexus does what an I_T NEXUS RESET means for the device server: every logical unit that the nexus sees has the
// unit attention 29/07 for it, and nothing else; other nexuses find nothing. The caller ends its commands first.
func (n *Nexus) ResetNexus() {
	for _, a := range n.view.Load().sorted {
		a.Attentions.Reset(AttentionNexusLoss)
		a.endLegacy()
	}
}
