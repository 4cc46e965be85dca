package opcodes

import "math/bits"

// Index finds the commands of a table by their CDBs. It is immutable.
type Index[T any] struct {
	All     []T
	command func(*T) Command
	entries [256]*entry[T]
}

// entry is what one operation code leads to: one command, or several told apart by service action.
type entry[T any] struct {
	plain   *T
	actions *[actionMask + 1]*T
}

// NewIndex indexes all; command tells of each what is reported. A table that contradicts itself is a programming error.
func NewIndex[T any](all []T, command func(*T) Command) *Index[T] {
	x := &Index[T]{All: all, command: command}
	for i := range all {
		o := &all[i]
		c := command(o)
		e := x.entries[c.Usage[0]]
		if e == nil {
			e = &entry[T]{}
			if c.Action {
				e.actions = new([actionMask + 1]*T)
			}
			x.entries[c.Usage[0]] = e
		}
		action := c.Usage[1] & actionMask
		switch {
		case c.Action && e.actions != nil && e.actions[action] == nil:
			e.actions[action] = o
		case !c.Action && e.actions == nil && e.plain == nil:
			e.plain = o
		default:
			panic("opcodes: two commands for one code")
		}
	}
	return x
}

// Find returns the command of cdb, which is not empty. When there is none, known tells whether the operation code exists
// with another service action.
func (x *Index[T]) Find(cdb []byte) (o *T, known bool) {
	e := x.entries[cdb[0]]
	switch {
	case e == nil:
		return nil, false
	case e.actions == nil:
		return e.plain, true
	case len(cdb) < 2:
		return nil, true
	}
	return e.actions[cdb[1]&actionMask], true
}

// AppendReport appends what REPORT SUPPORTED OPERATION CODES answers. ok is false when REPORTING OPTIONS can not be, or can
// not be for that operation code.
func (x *Index[T]) AppendReport(p []byte, option, opcode byte, action uint16, timeouts bool) (out []byte, ok bool) {
	if option == All {
		return AppendAll(p, func(yield func(Command) bool) {
			for i := range x.All {
				if !yield(x.command(&x.All[i])) {
					return
				}
			}
		}, timeouts), true
	}
	e := x.entries[opcode]
	switch {
	case option > OpcodeAction:
		return p, false
	case e != nil && (e.actions != nil && option == Opcode || e.actions == nil && option == Action):
		return p, false
	}
	if o := e.find(action, option == Opcode); o != nil {
		return x.command(o).Append(p, timeouts), true
	}
	return AppendNone(p), true
}

// find returns the command for a service action, or nil; without service actions there is only 0.
func (e *entry[T]) find(action uint16, anyAction bool) *T {
	switch {
	case e == nil:
		return nil
	case e.actions == nil:
		if anyAction || action == 0 {
			return e.plain
		}
		return nil
	case action > actionMask:
		return nil
	}
	return e.actions[action]
}

// BadBit returns the first bit of cdb that is set and that c does not look at: byte and bit, 7 the most significant. ignored are
// bits of byte 1 that may be set all the same. The last byte, CONTROL, is not judged. cdb is at least as long as Usage.
func (c Command) BadBit(cdb []byte, ignored byte) (at, bit int, bad bool) {
	last := len(c.Usage) - 1
	wrong := cdb[1] &^ (c.Usage[1] | ignored)
	if c.Action {
		wrong &^= actionMask
	}
	at = 1
	for wrong == 0 {
		if at++; at >= last {
			return 0, 0, false
		}
		wrong = cdb[at] &^ c.Usage[at]
	}
	return at, bits.Len8(wrong) - 1, true
}
