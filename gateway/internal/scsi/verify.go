package scsi

import (
	"bytes"
	"context"
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
			n = 1 << a.unit.shift
		}
		var ok bool
		if expect, ok = a.parameterList(c, int(n)); !ok {
			return
		}
	}
	a.compare(ctx, c, e, expect)
}

// compare reads e in pieces. expect is nil, one logical block or as long as e: unless nil the medium must equal it,
// over and over, and the first byte that does not ends c with MISCOMPARE, its offset within e as INFORMATION.
func (a *attachment) compare(ctx context.Context, c *Command, e extent, expect []byte) {
	buf := a.unit.buffer()
	defer a.unit.release(buf)
	off, length := a.offset(e), a.bytes(e)
	for done := int64(0); done < length; {
		p := (*buf)[:min(length-done, bufferSize)]
		if err := a.backend.Read(ctx, p, off+done); err != nil {
			a.failBackend(ctx, c, err, false)
			return
		}
		if at := mismatch(p, expect, done); at >= 0 {
			a.fail(c, senseData{Code: MiscompareDuringVerify, Info: uint64(done) + uint64(at), HasInfo: true})
			return
		}
		done += int64(len(p))
	}
}

// mismatch returns the index of the first byte of p that differs from expect, which is repeated and of which p
// begins at offset start, or -1. An empty expect fits everything.
func mismatch(p, expect []byte, start int64) int {
	if len(expect) == 0 {
		return -1
	}
	for at := 0; at < len(p); {
		e := expect[(start+int64(at))%int64(len(expect)):]
		n := min(len(e), len(p)-at)
		if !bytes.Equal(p[at:at+n], e[:n]) {
			for p[at] == e[0] {
				at, e = at+1, e[1:]
			}
			return at
		}
		at += n
	}
	return -1
}
