// Package history tells whether what the clients of a chunk saw can have happened: whether there is an order of the operations,
// each between its call and its return, in which every one has the outcome that it had.
//
//	[call ───── write 7 of sectors 3+2 ───── return]
//	         [call ── read: 0 7 7 0 ── return]                    linearizable: the write took effect before the read
//	   [call ── compare 3+1 with 7, write 9 ── … abandoned: it took effect before ret, or never
//
// A sector holds the number of the operation that wrote it (Fill), so that what is read tells who wrote it, and bytes that
// nobody wrote are seen at once (Values).
package history

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// How much of each chunk is used: AreaBlocks blocks of BlockSectors sectors, Area sectors in all.
const (
	AreaBlocks   = 24
	BlockSectors = layout.BlockSize / copyset.SectorSize
	Area         = AreaBlocks * BlockSectors
)

// content is what an area holds: in each sector the number of the operation that wrote it, 0 for zeroes. The history is
// checked against it as one register, so an operation on many blocks takes effect as a whole or not at all.
type content [Area]uint32

// Fill writes the sectors of value v.
func Fill(p []byte, v uint32) {
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

// Values reads back what Fill wrote; ok is false when these are other bytes.
func Values(p []byte) (vs []uint32, ok bool) {
	var want [copyset.SectorSize]byte
	for ; len(p) > 0; p = p[copyset.SectorSize:] {
		v := uint32(binary.LittleEndian.Uint64(p))
		Fill(want[:], v)
		if want != [copyset.SectorSize]byte(p) {
			return nil, false
		}
		vs = append(vs, v)
	}
	return vs, true
}

// Op is one operation of a history.
type Op struct {
	Kind     copyset.Op // 0: a read
	First, N int        // sectors
	Value    uint32     // that it writes
	Expect   []uint32   // what a compare and write compares with
	Maybe    bool       // it was abandoned: it took effect before Ret, or never will
	Call     uint64
	Ret      uint64
	// What was answered.
	Seen []uint32 // of a read
	Out  copyset.Outcome
}

func (o *Op) String() string {
	s := fmt.Sprintf("[%d %d] op %d sectors %d+%d value %d", o.Call, o.Ret, o.Kind, o.First, o.N, o.Value)
	if o.Maybe {
		s += " abandoned"
	}
	if o.Kind == copyset.OpCompareAndWrite {
		s += fmt.Sprintf(" expect %v: %v at %d", o.Expect, o.Out.Code, o.Out.Offset)
	}
	if o.Kind == 0 {
		s += fmt.Sprintf(" saw %v", o.Seen)
	}
	return s
}

// step applies the operation to a content, or tells that it can not have had its outcome.
func (o *Op) step(c *content) (bool, *content) {
	at := c[o.First : o.First+o.N]
	switch o.Kind {
	case 0:
		for i, v := range o.Seen {
			if at[i] != v {
				return false, c
			}
		}
		return true, c
	case copyset.OpCompareAndWrite:
		equal := true
		differs := 0
		for i, v := range o.Expect {
			if at[i] != v {
				equal, differs = false, i
				break
			}
		}
		switch {
		case o.Maybe && !equal:
			return true, c
		case o.Maybe:
		case equal != (o.Out.Code == copyset.OK):
			return false, c
		case !equal:
			return differs == int(o.Out.Offset)/copyset.SectorSize, c
		}
	}
	next := *c
	first, last, v := o.First, o.First+o.N, o.Value
	switch o.Kind {
	case copyset.OpDiscard: // whole blocks only
		first, last, v = (first+BlockSectors-1)/BlockSectors*BlockSectors, last/BlockSectors*BlockSectors, 0
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
func (o *Op) next(cs contents) contents {
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
		if o.Maybe {
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
		next := input.(*Op).next(state.(contents))
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

// Check tells whether the history is linearizable.
func Check(history []*Op) porcupine.CheckResult {
	ops := make([]porcupine.Operation, len(history))
	for i, o := range history {
		ops[i] = porcupine.Operation{ClientId: i, Input: o, Call: int64(o.Call), Return: int64(o.Ret)}
	}
	return porcupine.CheckOperationsTimeout(model, ops, checkTime)
}
