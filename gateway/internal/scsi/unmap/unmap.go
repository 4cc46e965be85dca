// Package unmap reads the parameter list of UNMAP (SBC-3 5.28.2):
//
//	0 UNMAP DATA LENGTH(2)  2 BLOCK DESCRIPTOR DATA LENGTH(2)  4 reserved(4)  8 { LBA(8) BLOCKS(4) reserved(4) }...
package unmap

import "encoding/binary"

// Lengths in the list, in bytes.
const (
	Header     = 8
	descriptor = 16
)

// List is the block descriptors of a parameter list: a whole number of them.
type List []byte

// Range is a run of logical blocks.
type Range struct{ LBA, Blocks uint64 }

// Parse takes the descriptors from a parameter list of at least Header bytes. An incomplete one at the end is ignored, as the
// standard says.
func Parse(list []byte) List {
	n := min(int(binary.BigEndian.Uint16(list[2:])), len(list)-Header)
	return List(list[Header : Header+n-n%descriptor])
}

func (l List) at(i int) Range {
	d := l[i*descriptor:]
	return Range{LBA: binary.BigEndian.Uint64(d), Blocks: uint64(binary.BigEndian.Uint32(d[8:]))}
}

// Limits bound a list.
type Limits struct {
	Descriptors int
	Blocks      uint64 // of all descriptors
	Capacity    uint64 // of the logical unit
}

// Fault says what is wrong with a list: At is the byte of the parameter list where the field begins.
type Fault struct {
	At         int
	OutOfRange bool // blocks beyond the capacity; else more than the limits allow
}

// Check judges all descriptors.
func (l List) Check(limits Limits) *Fault {
	count := len(l) / descriptor
	if count > limits.Descriptors {
		return &Fault{At: 2}
	}
	var total uint64
	for i := range count {
		r := l.at(i)
		if r.LBA > limits.Capacity || r.Blocks > limits.Capacity-r.LBA {
			return &Fault{At: Header + i*descriptor, OutOfRange: true}
		}
		if total += r.Blocks; total > limits.Blocks {
			return &Fault{At: Header + i*descriptor + 8}
		}
	}
	return nil
}

// Runs calls do for the runs of the list in its order until it returns false. Neighbours that meet are one run, so that logical
// blocks shorter than the unit of allocation free it also when they come one by one.
func (l List) Runs(do func(Range) bool) {
	var run Range
	for i := range len(l) / descriptor {
		next := l.at(i)
		if next.LBA == run.LBA+run.Blocks {
			run.Blocks += next.Blocks
			continue
		}
		if run.Blocks > 0 && !do(run) {
			return
		}
		run = next
	}
	if run.Blocks > 0 {
		do(run)
	}
}
