package scsi

import "github.com/ashlar-storage/ashlar/storage/reservation"

// What task management functions ask of the device server, SAM-5 section 7. Commands are the transport's.

// PendingAttention returns the unit attention that the next command to lun would report, and how many wait. It returns
// NoSense and 0 when none does, and for a lun that is absent (QUERY ASYNCHRONOUS EVENT, SAM-5 section 7.10).
func (n *Nexus) PendingAttention(lun LUN) (code SenseCode, waiting int) {
	if a := n.lookup(lun); a != nil {
		return a.Attentions.Peek()
	}
	return NoSense, 0
}

// ResetNexus does what an I_T NEXUS RESET means for the device server: every logical unit that the nexus sees has the
// unit attention 29/07 for it, and nothing else; other nexuses find nothing. The caller ends its commands first.
func (n *Nexus) ResetNexus() {
	for _, a := range n.view.Load().sorted {
		a.Attentions.Reset(AttentionNexusLoss)
		a.endLegacy(reservation.NexusLost)
	}
}
