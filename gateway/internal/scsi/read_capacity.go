package scsi

import (
	"context"
	"encoding/binary"
	"math"
	"math/bits"
)

// readCapacity10 is READ CAPACITY(10) (SBC-3 5.15): the last LBA, or FFFFFFFFh when it needs more than 32 bits, and
// the logical block length.
func readCapacity10(_ context.Context, a *attachment, c *Command) {
	last := min(a.unit.Blocks()-1, math.MaxUint32)
	p := binary.BigEndian.AppendUint32(c.small[:0], uint32(last))
	p = binary.BigEndian.AppendUint32(p, uint32(a.unit.BlockLength()))
	c.reply(p, uint64(len(p)))
}

// readCapacity16 is READ CAPACITY(16) (SBC-3 5.16), 32 bytes: last LBA(8), block length(4), no protection, the
// logical blocks per physical block, and LBPME, LBPRZ with lowest aligned LBA 0.
func readCapacity16(_ context.Context, a *attachment, c *Command) {
	p := append(c.small[:0], make([]byte, 32)...)
	binary.BigEndian.PutUint64(p, a.unit.Blocks()-1)
	binary.BigEndian.PutUint32(p[8:], uint32(a.unit.BlockLength()))
	p[13] = byte(bits.TrailingZeros(ProvisioningBlock) - int(a.unit.Shift()))
	p[14] = 0xC0 // LBPME LBPRZ
	c.reply(p, uint64(c.u32(10)))
}
