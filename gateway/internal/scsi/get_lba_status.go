package scsi

import (
	"context"
	"encoding/binary"
	"math"
)

// lbaStatusMax bounds the descriptors of one answer, and with them the questions to the Backend: the initiator asks
// on from where the last one ends.
const lbaStatusMax = 128

// lbaStatusReach bounds the bytes that one answer describes.
const lbaStatusReach = 1 << 30

// getLBAStatus is GET LBA STATUS (SBC-3 5.5):
//
//	0 PARAMETER DATA LENGTH(4)  4 reserved(4)  8 { LBA(8) BLOCKS(4) STATUS reserved(3) }...
//
// The first descriptor begins at the LBA that was asked for; each next one where the last ended. STATUS is 0 mapped
// or 1 deallocated. There is room for at least one descriptor whatever the allocation length.
func getLBAStatus(ctx context.Context, a *attachment, c *Command) {
	start, allocation := c.u64(2), uint64(c.u32(10))
	total := a.unit.Blocks()
	if start >= total {
		a.refuse(c, LBAOutOfRange, cdbField(2, -1))
		return
	}
	most := min(max(int(min(allocation, 1<<20))-8, 16)/16, lbaStatusMax)
	end := min(total-start, lbaStatusReach>>a.unit.Shift()) + start
	p := append(c.small[:0], make([]byte, 8)...)
	for n := 0; n < most && start < end; n++ {
		mapped, blocks, err := a.lbaRun(ctx, start, end)
		if err != nil {
			a.failBackend(ctx, c, err, false)
			return
		}
		status := byte(1)
		if mapped {
			status = 0
		}
		p = binary.BigEndian.AppendUint64(p, start)
		p = binary.BigEndian.AppendUint32(p, uint32(min(blocks, math.MaxUint32)))
		p = append(p, status, 0, 0, 0)
		start += blocks
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	c.reply(p, allocation)
}

// lbaRun returns how many logical blocks from lba on, and before end, share one state, at least one. A logical block
// is never in two ProvisioningBlocks, so a run that is not a whole number of them would be the Backend's error; it
// is rounded up.
func (a *attachment) lbaRun(ctx context.Context, lba, end uint64) (mapped bool, blocks uint64, err error) {
	length := int64((end - lba) << a.unit.Shift())
	mapped, run, err := a.backend.Allocated(ctx, int64(lba<<a.unit.Shift()), length)
	if err != nil {
		return false, 0, err
	}
	run = min(max(run, 1), length)
	return mapped, uint64(run+(1<<a.unit.Shift())-1) >> a.unit.Shift(), nil
}
