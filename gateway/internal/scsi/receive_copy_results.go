package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/xcopy"
)

// RECEIVE COPY RESULTS (SPC-4 6.24 to 6.26): COPY STATUS, OPERATING PARAMETERS and FAILED SEGMENT DETAILS.

func receiveCopyStatus(_ context.Context, a *attachment, c *Command) {
	r, ok := a.results.Status(c.CDB[2])
	if !ok {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, -1))
		return
	}
	c.reply(r.AppendStatus(c.small[:0]), uint64(c.u32(10)))
}

func receiveCopyParameters(_ context.Context, _ *attachment, c *Command) {
	c.reply(xcopy.AppendOperatingParameters(c.small[:0]), uint64(c.u32(10)))
}

// receiveCopyFailure tells the details of a failure once, as the standard asks.
func receiveCopyFailure(_ context.Context, a *attachment, c *Command) {
	r, ok := a.results.Status(c.CDB[2])
	if !ok {
		a.refuse(c, InvalidFieldInCDB, cdbField(2, -1))
		return
	}
	if r.Status == xcopy.Failed {
		a.results.Forget(c.CDB[2])
	}
	c.reply(r.AppendFailure(c.small[:0]), uint64(c.u32(10)))
}
