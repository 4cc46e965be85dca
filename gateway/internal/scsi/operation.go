package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/opcodes"
)

// operation is one command that the device server supports: one line of the table in operations.go, from which
// dispatch, Classify, the check of CDB length and reserved bits, and REPORT SUPPORTED OPERATION CODES are made.
type operation struct {
	name string

	// usage is the CDB usage data (SPC-4 6.35.3): the operation code, the service action where there is one, and a
	// one for each bit that is looked at. Its length is the CDB's; the last byte is CONTROL. A bit of the CDB that is
	// set and not in usage answers 05/24/00, so an option that is not supported needs no code: it is left out here.
	usage []byte

	// action tells that byte 1 (bits 4..0) of usage is a service action.
	action bool

	// ignored are bits of CDB byte 1 that were something once (FUA_NV, RARC, the LUN of SCSI-2) and that some
	// initiators still set: neither looked at nor refused.
	ignored byte

	traits  traits
	timeout uint32 // recommended command timeout, seconds (SPC-4 6.35.4)
	run     func(ctx context.Context, a *attachment, c *Command)
}

// traits are what the frame must know of a command.
type traits uint8

const (
	medium      traits = 1 << iota // calls the Backend, so may block
	writes                         // changes the medium: refused on a read-only mapping
	dataIn                         // may send data to the initiator
	dataOut                        // may take data from the initiator
	copies                         // may change the medium of other logical units, and sees to their protection
	whileErased                    // runs while the volume is sanitized (SBC-4 4.11)
	ignoreUA                       // runs with a unit attention pending, which it neither reports nor clears (SAM-5 5.14)
)

func (o *operation) opcode() byte { return o.usage[0] }

// serviceAction returns the service action, 0 when there is none.
func (o *operation) serviceAction() uint16 {
	if !o.action {
		return 0
	}
	return uint16(o.usage[1] & serviceActionMask)
}

// serviceActionMask is the SERVICE ACTION field in byte 1 of a CDB.
const serviceActionMask = 0x1F

// controlNACA is the NACA bit of the CONTROL byte (SAM-5 5.2).
const controlNACA = 0x04

// operationList is a table of operations with its index. It is immutable.
type operationList = opcodes.Index[operation]

// newOperationList indexes all.
func newOperationList(all []operation) *operationList {
	return opcodes.NewIndex(all, (*operation).reported)
}

// reported is the operation as REPORT SUPPORTED OPERATION CODES tells of it.
func (o *operation) reported() opcodes.Command {
	return opcodes.Command{Usage: o.usage, Action: o.action, Timeout: o.timeout}
}

// badBit returns the first bit of cdb that is set and that o does not know; ok is false when all is well. cdb is
// at least as long as the operation's CDB.
func (o *operation) badBit(cdb []byte) (field fieldPointer, ok bool) {
	at, bit, bad := o.reported().BadBit(cdb, o.ignored)
	return cdbField(at, bit), bad
}

// Direction is where a command's data go.
type Direction byte

// Directions.
const (
	DirectionNone Direction = iota
	DirectionIn             // to the initiator
	DirectionOut            // from the initiator
)

// Class is what Classify tells of a command.
type Class struct {
	// Medium is set when the command may block in the Backend. Without it Execute answers at once, from memory.
	Medium bool

	// Writes is set when the command may change the medium, or that of another logical unit (Command.FenceElsewhere).
	Writes bool

	// Direction is the direction that the command's data can have; there need not be any.
	Direction Direction
}

// Classify judges a command by its CDB alone. It is cheap, and never fails: an unknown CDB has the zero Class.
func Classify(cdb []byte) Class {
	if len(cdb) == 0 {
		return Class{}
	}
	o, _ := allOperations.Find(cdb)
	if o == nil {
		return Class{}
	}
	c := Class{Medium: o.traits&medium != 0, Writes: o.traits&(writes|copies) != 0}
	switch {
	case o.traits&dataIn != 0:
		c.Direction = DirectionIn
	case o.traits&dataOut != 0:
		c.Direction = DirectionOut
	}
	return c
}

// Name returns the name of a command as the standards write it, e.g. "READ(10)", or "" for an unknown one.
func Name(cdb []byte) string {
	if len(cdb) == 0 {
		return ""
	}
	if o, _ := allOperations.Find(cdb); o != nil {
		return o.name
	}
	return ""
}

// admit makes the checks that are the same for every command. It returns nil when the command ended there.
func (a *attachment) admit(c *Command) *operation {
	op, known := allOperations.Find(c.CDB)
	switch {
	case op == nil && known: // SPC-4 4.2.5.2: a service action that is not supported
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 4))
		return nil
	case op == nil:
		a.refuse(c, InvalidOperationCode, cdbField(0, 7))
		return nil
	}
	if op.traits&ignoreUA == 0 {
		if code, ok := a.Attentions.Take(); ok {
			a.fail(c, senseData{Code: code})
			return nil
		}
	}
	if !a.sanitized(c, op) {
		return nil
	}
	if len(c.CDB) < len(op.usage) {
		a.fail(c, senseData{Code: InvalidFieldInCDB})
		return nil
	}
	last := len(op.usage) - 1
	if c.CDB[last]&controlNACA != 0 {
		a.refuse(c, InvalidFieldInCDB, cdbField(last, 2))
		return nil
	}
	if field, bad := op.badBit(c.CDB); bad {
		a.refuse(c, InvalidFieldInCDB, field)
		return nil
	}
	if op.traits&writes != 0 && !a.writable(c) {
		return nil
	}
	return op
}

// writable tells whether the medium may be written; when not, it ends c.
func (a *attachment) writable(c *Command) bool {
	code := a.protection()
	if code != NoSense {
		a.fail(c, senseData{Code: code})
	}
	return code == NoSense
}

// protection returns why the medium may not be written, NoSense if it may be.
func (a *attachment) protection() SenseCode {
	switch {
	case a.readOnly:
		return WriteProtected
	case a.unit.Settings()&mode.WriteProtect != 0:
		return SoftwareWriteProtected
	}
	return NoSense
}
