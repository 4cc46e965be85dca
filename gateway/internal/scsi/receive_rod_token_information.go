package scsi

import "context"

// receiveRODTokenInformation is RECEIVE ROD TOKEN INFORMATION (SPC-4 6.28).
func receiveRODTokenInformation(_ context.Context, a *attachment, c *Command) {
	info, ok := a.results.Information(c.u32(2))
	if !ok {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, -1))
		return
	}
	c.reply(info.Append(c.small[:0]), uint64(c.u32(10)))
}
