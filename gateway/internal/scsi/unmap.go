package scsi

import (
	"context"

	parameters "github.com/ashlar-storage/ashlar/gateway/internal/scsi/unmap"
)

// unmap is UNMAP (SBC-3 5.28). All descriptors are checked before the first one is acted on. All of what is unmapped reads
// as zeroes.
func unmap(ctx context.Context, a *attachment, c *Command) {
	n := int(c.u16(7))
	if n == 0 {
		return
	}
	p, ok := a.parameterList(c, n)
	if !ok {
		return
	}
	if n < parameters.Header {
		a.fail(c, senseData{Code: ParameterListLengthError})
		return
	}
	list, limits := parameters.Parse(p), a.unit.Config().Limits
	fault := list.Check(parameters.Limits{
		Descriptors: limits.MaxUnmapDescriptors, Blocks: uint64(limits.MaxUnmap) >> a.unit.Shift(), Capacity: a.unit.Blocks(),
	})
	switch {
	case fault == nil:
	case fault.OutOfRange:
		a.refuse(c, LBAOutOfRange, dataField(fault.At, -1))
		return
	default:
		a.refuse(c, InvalidFieldInParameters, dataField(fault.At, -1))
		return
	}
	list.Runs(func(r parameters.Range) bool {
		e := extent{lba: r.LBA, blocks: r.Blocks}
		if err := a.deallocate(ctx, a.offset(e), a.bytes(e)); err != nil {
			a.failBackend(ctx, c, err, true)
			return false
		}
		return true
	})
}
