package sim

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// area is how much of each chunk is used, in sectors.
const (
	areaBlocks   = 24
	blockSectors = layout.BlockSize / copyset.SectorSize
	area         = areaBlocks * blockSectors
)

// content is what an area holds: in each sector the number of the operation that wrote it, 0 for zeroes. The history is
// checked against it as one register, so an operation on many blocks takes effect as a whole or not at all.
type content [area]uint32

// fill writes the sectors of value v.
func fill(p []byte, v uint32) {
	if v == 0 {
		clear(p)
		return
	}
	for i := 0; i < len(p); i += 8 {
		word := uint64(v)
		if at := i % copyset.SectorSize; at > 0 {
			word = (uint64(v) + uint64(at)) * 0x9e3779b97f4a7c15
		}
		binary.LittleEndian.PutUint64(p[i:], word)
	}
}

// values reads back what fill wrote; ok is false when these are other bytes.
func values(p []byte) (vs []uint32, ok bool) {
	var want [copyset.SectorSize]byte
	for ; len(p) > 0; p = p[copyset.SectorSize:] {
		v := uint32(binary.LittleEndian.Uint64(p))
		fill(want[:], v)
		if want != [copyset.SectorSize]byte(p) {
			return nil, false
		}
		vs = append(vs, v)
	}
	return vs, true
}

// op is one operation of a history.
type op struct {
	kind     copyset.Op // 0: a read
	first, n int        // sectors
	value    uint32     // that it writes
	expect   []uint32   // what a compare and write compares with
	maybe    bool       // it was abandoned: it took effect before ret, or never will
	call     uint64
	ret      uint64
	// What was answered.
	seen []uint32 // of a read
	out  copyset.Outcome
}

func (o *op) String() string {
	s := fmt.Sprintf("[%d %d] op %d sectors %d+%d value %d", o.call, o.ret, o.kind, o.first, o.n, o.value)
	if o.maybe {
		s += " abandoned"
	}
	if o.kind == copyset.OpCompareAndWrite {
		s += fmt.Sprintf(" expect %v: %v at %d", o.expect, o.out.Code, o.out.Offset)
	}
	if o.kind == 0 {
		s += fmt.Sprintf(" saw %v", o.seen)
	}
	return s
}

// step applies the operation to a content, or tells that it can not have had its outcome.
func (o *op) step(c *content) (bool, *content) {
	at := c[o.first : o.first+o.n]
	switch o.kind {
	case 0:
		for i, v := range o.seen {
			if at[i] != v {
				return false, c
			}
		}
		return true, c
	case copyset.OpCompareAndWrite:
		equal := true
		differs := 0
		for i, v := range o.expect {
			if at[i] != v {
				equal, differs = false, i
				break
			}
		}
		switch {
		case o.maybe && !equal:
			return true, c
		case o.maybe:
		case equal != (o.out.Code == copyset.OK):
			return false, c
		case !equal:
			return differs == int(o.out.Offset)/copyset.SectorSize, c
		}
	}
	next := *c
	first, last, v := o.first, o.first+o.n, o.value
	switch o.kind {
	case copyset.OpDiscard: // whole blocks only
		first, last, v = (first+blockSectors-1)/blockSectors*blockSectors, last/blockSectors*blockSectors, 0
	case copyset.OpWriteZeroes:
		v = 0
	}
	for i := first; i < last; i++ {
		next[i] = v
	}
	return true, &next
}

// contents are what an area may hold: more than one when it is open whether an abandoned operation took effect.
type contents []*content

func (cs contents) has(c *content) bool {
	for _, o := range cs {
		if *o == *c {
			return true
		}
	}
	return false
}

// next are the contents after an operation; none when it can not have had its outcome.
func (o *op) next(cs contents) contents {
	var out contents
	add := func(c *content) {
		if !out.has(c) {
			out = append(out, c)
		}
	}
	for _, c := range cs {
		if ok, n := o.step(c); ok {
			add(n)
		}
		if o.maybe {
			add(c)
		}
	}
	return out
}

func (c *content) hash() uint64 {
	h := uint64(14695981039346656037)
	for _, v := range c {
		h = (h ^ uint64(v)) * 1099511628211
	}
	return h
}

var model = porcupine.Model{
	Init: func() any { return contents{&content{}} },
	Step: func(state, input, _ any) (bool, any) {
		next := input.(*op).next(state.(contents))
		return len(next) > 0, next
	},
	Equal: func(a, b any) bool {
		x, y := a.(contents), b.(contents)
		if len(x) != len(y) {
			return false
		}
		for _, c := range x {
			if !y.has(c) {
				return false
			}
		}
		return true
	},
	Hash: func(state any) (h uint64) {
		for _, c := range state.(contents) {
			h ^= c.hash()
		}
		return h
	},
}

// checkTime bounds the check of one history. One that takes longer is counted, not believed.
const checkTime = 10 * time.Second

// check tells whether the history is linearizable.
func check(history []*op) porcupine.CheckResult {
	ops := make([]porcupine.Operation, len(history))
	for i, o := range history {
		ops[i] = porcupine.Operation{ClientId: i, Input: o, Call: int64(o.call), Return: int64(o.ret)}
	}
	return porcupine.CheckOperationsTimeout(model, ops, checkTime)
}
