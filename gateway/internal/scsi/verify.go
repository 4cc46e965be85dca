package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/media"
)

// VERIFY(10), VERIFY(12), VERIFY(16) (SBC-3 5.29 to 5.31).

func verify10(ctx context.Context, a *attachment, c *Command) { a.verify(ctx, c, extent10(c)) }
func verify12(ctx context.Context, a *attachment, c *Command) { a.verify(ctx, c, extent12(c)) }
func verify16(ctx context.Context, a *attachment, c *Command) { a.verify(ctx, c, extent16(c)) }

// BYTCHK values (SBC-3 5.29, table 86).
const (
	bytchkMedium   = 0 // no data-out: the blocks must be readable
	bytchkCompare  = 1 // as many blocks of data-out
	bytchkReserved = 2
	bytchkSame     = 3 // one block of data-out, to be found in every block
)

// bytchk returns the BYTCHK field of the CDB.
func (c *Command) bytchk() byte { return c.CDB[1] >> 1 & 3 }

// verify reads e and compares it as BYTCHK says.
func (a *attachment) verify(ctx context.Context, c *Command, e extent) {
	mode := c.bytchk()
	if mode == bytchkReserved {
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 2))
		return
	}
	if !a.transferable(c, e) {
		return
	}
	if e.blocks == 0 {
		return
	}
	var expect []byte
	if mode != bytchkMedium {
		n := a.bytes(e)
		if mode == bytchkSame {
			n = 1 << a.unit.Shift()
		}
		var ok bool
		if expect, ok = a.parameterList(c, int(n)); !ok {
			return
		}
	}
	a.compare(ctx, c, e, expect)
}

// compare reads e and compares it with expect, which is nil, one logical block or as long as e; see media.Compare. The
// first byte that differs ends c with MISCOMPARE, its offset within e as INFORMATION.
func (a *attachment) compare(ctx context.Context, c *Command, e extent, expect []byte) {
	at, err := media.Compare(ctx, a.backend, &a.unit.Buffers, a.offset(e), a.bytes(e), expect)
	switch {
	case err != nil:
		a.failBackend(ctx, c, err, false)
	case at >= 0:
		a.fail(c, senseData{Code: MiscompareDuringVerify, Info: uint64(at), HasInfo: true})
	}
}
