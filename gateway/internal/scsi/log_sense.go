package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/logpage"
)

// SpaceReporter is a Backend that knows what its thinly provisioned volume uses, in bytes. It answers from memory.
type SpaceReporter interface {
	// Space returns what is allocated to the volume and what may still be, from the space that all volumes share; ok
	// is false when the store has not told yet.
	Space() (used, available int64, ok bool)
}

// logSense is LOG SENSE (SPC-4 6.8). Nothing is accumulated and nothing can be saved, so the kind of values that PC asks
// for makes no difference and SP is refused by the table.
func logSense(_ context.Context, a *attachment, c *Command) {
	p, fault := logpage.Append(c.small[:0], c.CDB[2]&0x3F, c.CDB[3], c.u16(5), a.space())
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
func (a *attachment) space() logpage.Space {
	r, ok := a.backend.(SpaceReporter)
	if !ok {
		return logpage.Space{}
	}
	used, available, ok := r.Space()
	if !ok {
		return logpage.Space{}
	}
	const set = 1 << thresholdSet
	return logpage.Space{Known: true, Used: (uint64(max(used, 0)) + set - 1) / set, Available: uint64(max(available, 0)) / set}
}
