package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
)

// requestSense is REQUEST SENSE (SPC-4 6.39). Sense data travel with each CHECK CONDITION, so what is left to report
// is the oldest unit attention, which is cleared by it, how far a SANITIZE is, or NO SENSE. DESC asks for the descriptor
// format.
func requestSense(_ context.Context, a *attachment, c *Command) {
	if code, ok := a.Attentions.Take(); ok {
		c.replySense(senseData{Code: code})
		return
	}
	if a.sanitizer != nil {
		if s := a.sanitizer.Sanitizing(); s.State != sanitize.Idle {
			c.replySense(sanitizeSense(s))
			return
		}
	}
	c.replySense(senseData{Code: NoSense})
}

// replySense sends d as data-in, in the format that the CDB's DESC bit asks for.
func (c *Command) replySense(d senseData) {
	var p [SenseMax]byte
	n := d.Put(p[:], c.CDB[1]&0x01 != 0)
	c.reply(p[:n], uint64(c.CDB[4]))
}
