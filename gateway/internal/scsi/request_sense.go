package scsi

import "context"

// requestSense is REQUEST SENSE (SPC-4 6.39). Sense data travel with each CHECK CONDITION, so what is left to report
// is the oldest unit attention, which is cleared by it, or NO SENSE. DESC asks for the descriptor format.
func requestSense(_ context.Context, a *attachment, c *Command) {
	code, ok := a.attentions.take()
	if !ok {
		code = NoSense
	}
	c.replySense(code)
}

// replySense sends code as data-in, in the format that the CDB's DESC bit asks for.
func (c *Command) replySense(code SenseCode) {
	var p [SenseMax]byte
	n := senseData{Code: code}.Put(p[:], c.CDB[1]&0x01 != 0)
	c.reply(p[:n], uint64(c.CDB[4]))
}
