package scsi

import (
	"context"
	"encoding/binary"
)

// Lengths in the UNMAP parameter list (SBC-3 5.28.2), in bytes.
const (
	unmapHeader     = 8
	unmapDescriptor = 16
)

// unmap is UNMAP (SBC-3 5.28):
//
//	0 UNMAP DATA LENGTH(2)  2 BLOCK DESCRIPTOR DATA LENGTH(2)  4 reserved(4)  8 { LBA(8) BLOCKS(4) reserved(4) }...
//
// All descriptors are checked before the first one is acted on; an incomplete one at the end is ignored, as the
// standard says. Neighbours that meet are unmapped as one, so that logical blocks shorter than a ProvisioningBlock
// also free it when they come one by one. All of what is unmapped reads as zeroes.
func unmap(ctx context.Context, a *attachment, c *Command) {
	n := int(c.u16(7))
	if n == 0 {
		return
	}
	list, ok := a.parameterList(c, n)
	if !ok {
		return
	}
	if n < unmapHeader {
		a.fail(c, senseData{Code: ParameterListLengthError})
		return
	}
	length := min(int(binary.BigEndian.Uint16(list[2:])), n-unmapHeader)
	length -= length % unmapDescriptor
	descriptors := list[unmapHeader : unmapHeader+length]
	if !a.unmapFits(c, descriptors) {
		return
	}
	var run extent
	for ; len(descriptors) > 0; descriptors = descriptors[unmapDescriptor:] {
		next := unmapExtent(descriptors)
		if next.lba == run.lba+run.blocks {
			run.blocks += next.blocks
			continue
		}
		if !a.unmapRun(ctx, c, run) {
			return
		}
		run = next
	}
	a.unmapRun(ctx, c, run)
}

// unmapFits checks the descriptors against the limits and the capacity; when they do not fit, it ends c.
func (a *attachment) unmapFits(c *Command, descriptors []byte) bool {
	limits := a.unit.config.Limits
	if len(descriptors)/unmapDescriptor > limits.MaxUnmapDescriptors {
		a.refuse(c, InvalidFieldInParameters, dataField(2, -1))
		return false
	}
	var total uint64
	for at := 0; at < len(descriptors); at += unmapDescriptor {
		e := unmapExtent(descriptors[at:])
		if all := a.unit.Blocks(); e.lba > all || e.blocks > all-e.lba {
			a.refuse(c, LBAOutOfRange, dataField(unmapHeader+at, -1))
			return false
		}
		if total += e.blocks; total > uint64(limits.MaxUnmap)>>a.unit.shift {
			a.refuse(c, InvalidFieldInParameters, dataField(unmapHeader+at+8, -1))
			return false
		}
	}
	return true
}

func unmapExtent(descriptor []byte) extent {
	return extent{
		lba:    binary.BigEndian.Uint64(descriptor),
		blocks: uint64(binary.BigEndian.Uint32(descriptor[8:])),
	}
}

func (a *attachment) unmapRun(ctx context.Context, c *Command, e extent) bool {
	if e.blocks == 0 {
		return true
	}
	if err := a.deallocate(ctx, a.offset(e), a.bytes(e)); err != nil {
		a.failBackend(ctx, c, err, true)
		return false
	}
	return true
}
