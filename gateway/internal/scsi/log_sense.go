package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/logpage"
)

// SpaceReporter is a Backend that knows what its thinly provisioned volume uses.
type SpaceReporter interface {
	// Space returns what is allocated to the volume and what may still be, from the space that all volumes share, in
	// bytes; less than 0 is not known. It begins nothing and returns soon after ctx is done.
	Space(ctx context.Context) (used, available int64)
}

// logSense is LOG SENSE (SPC-4 6.8). Nothing is accumulated and nothing can be saved, so the kind of values that PC asks
// for makes no difference and SP is refused by the table.
func logSense(ctx context.Context, a *attachment, c *Command) {
	var space logpage.Space
	if c.CDB[2]&0x3F == logpage.Provisioning {
		space = a.space(ctx)
	}
	p, fault := logpage.Append(c.small[:0], c.CDB[2]&0x3F, c.CDB[3], c.u16(5), space)
	switch fault {
	case logpage.NoPage:
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 5))
	case logpage.NoSubpage:
		a.refuse(c, InvalidFieldInCDB, cdbField(3, 7))
	case logpage.BadPointer:
		a.refuse(c, InvalidFieldInCDB, cdbField(5, 7))
	default:
		c.reply(p, uint64(c.u16(7)))
	}
}

// space is what the volume uses, in threshold sets; what is begun counts as used.
func (a *attachment) space(ctx context.Context) logpage.Space {
	r, ok := a.backend.(SpaceReporter)
	if !ok {
		return logpage.Space{}
	}
	used, available := r.Space(ctx)
	const set = 1 << thresholdSet
	return logpage.Space{
		HasUsed: used >= 0, Used: (uint64(max(used, 0)) + set - 1) / set,
		HasAvailable: available >= 0, Available: uint64(max(available, 0)) / set,
	}
}
