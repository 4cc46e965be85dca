package scsi

import (
	"encoding/binary"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/thirdparty"
)

// Command is one SCSI command and, after Nexus.Execute, its outcome. It is meant to be reused: Reset, fill in the
// first part, Execute. A Command belongs to one goroutine at a time.
type Command struct {
	// LUN is the command's logical unit number as on the wire.
	LUN LUN

	// CDB is the command descriptor block; bytes after its own length are ignored. Borrowed until Execute returns.
	CDB []byte

	// DataOut holds all data that the initiator sent, at most its expected transfer length. Borrowed until Execute
	// returns.
	//
	// A WRITE or WRITE AND VERIFY whose CDB asks for more writes the whole logical blocks that are there and ends
	// with GOOD, provided that DataOut is a whole number of them; else it writes nothing and answers ILLEGAL
	// REQUEST, INVALID FIELD IN COMMAND INFORMATION UNIT (05/0E/03). A command with a parameter list, or whose
	// data-out is one unit (WRITE SAME, COMPARE AND WRITE, VERIFY), answers the latter whenever data are missing.
	// Bytes beyond what the CDB asks are ignored, except by WRITE SAME and COMPARE AND WRITE.
	DataOut []byte

	// MaxDataIn is the most data-in that the initiator takes, in bytes: its expected transfer length, or 0 when it
	// did not announce data-in. A READ reads no more than this from the medium.
	MaxDataIn int

	// Alloc returns a buffer of exactly n > 0 bytes for DataIn; nil means make. It is called at most once during
	// Execute, and then what it returned belongs to the caller whether or not the command succeeds.
	Alloc func(n int) []byte

	// Status is the outcome, valid when Execute returned nil.
	Status Status

	// DataIn is the data-in, at most MaxDataIn bytes; nil unless Status is GOOD. It is (a part of) what Alloc
	// returned and belongs to the caller.
	DataIn []byte

	// Transfer is the number of bytes that the command would have moved for an initiator that expects as much as
	// the CDB asks. With the initiator's expected transfer length E the residual is: Transfer > E overflow of
	// Transfer-E, Transfer < E underflow of E-Transfer. Data-in counts only when it was sent, data-out also when
	// the command failed after its CDB was accepted.
	Transfer uint64

	senseLen int
	sense    [SenseMax]byte
	aborted  error
	again    bool   // judged by reservations that may have changed: the command begins anew
	buffer   []byte // what Alloc returned, for when the command begins anew
	// attention is the unit attention that the outcome reports, NoSense if it reports none. It has left its queue.
	attention SenseCode
	running   thirdparty.Running
	small     [replyInline]byte
	trial     trial
}

// replyInline is the size of a reply that needs no allocation of its own, in bytes.
const replyInline = 512

// Reset clears c for the next command; it keeps Alloc.
func (c *Command) Reset() {
	alloc := c.Alloc
	c.LUN, c.CDB, c.DataOut, c.MaxDataIn = 0, nil, nil, 0
	c.clearResult()
	c.Alloc = alloc
}

// Sense returns the sense data of CHECK CONDITION, at most SenseMax bytes, and nil for any other status. It is a
// part of c, valid until c is used again.
func (c *Command) Sense() []byte {
	if c.senseLen == 0 {
		return nil
	}
	return c.sense[:c.senseLen]
}

// SenseCode returns the code within Sense, or NoSense.
func (c *Command) SenseCode() SenseCode {
	if c.senseLen == 0 {
		return NoSense
	}
	return sense.CodeOf(c.sense[:c.senseLen])
}

// Fail makes CHECK CONDITION with fixed format sense data the outcome. It is for failures of the transport, which
// the caller finds before Execute.
func (c *Command) Fail(code SenseCode) {
	c.clearResult()
	c.check(senseData{Code: code}, false)
}

func (c *Command) clearResult() {
	c.again = false
	c.Status, c.DataIn, c.Transfer, c.senseLen, c.aborted, c.attention = StatusGood, nil, 0, 0, nil, NoSense
}

// noteAttention remembers code if it is a unit attention. Nothing else has this sense key.
func (c *Command) noteAttention(code SenseCode) {
	if code.Key() == keyUnitAttention {
		c.attention = code
	}
}

// keyUnitAttention is the sense key UNIT ATTENTION (SPC-4 4.5.6).
const keyUnitAttention = 6

// check ends the command with CHECK CONDITION. Data-in that was prepared is not sent.
func (c *Command) check(d senseData, descriptor bool) {
	c.Status = StatusCheckCondition
	c.senseLen = d.Put(c.sense[:], descriptor)
	c.DataIn = nil
	c.noteAttention(d.Code)
}

// alloc returns a buffer of n > 0 bytes for data-in.
func (c *Command) alloc(n int) []byte {
	if c.Alloc == nil {
		return make([]byte, n)
	}
	if n > len(c.buffer) {
		c.buffer = c.Alloc(n)[:n]
	}
	return c.buffer[:n]
}

// reply ends the command with data, cut to the CDB's allocation length and to what the initiator takes
// (SPC-4 4.2.5.6). data is copied.
func (c *Command) reply(data []byte, allocation uint64) {
	if c.CDB[0] == opRequestSense {
		c.noteAttention(sense.CodeOf(data))
	}
	if uint64(len(data)) > allocation {
		data = data[:allocation]
	}
	c.Transfer = uint64(len(data))
	n := min(len(data), max(c.MaxDataIn, 0))
	if n > 0 {
		c.DataIn = c.alloc(n)
		copy(c.DataIn, data)
	}
}

func (c *Command) u16(i int) uint16 { return binary.BigEndian.Uint16(c.CDB[i:]) }
func (c *Command) u24(i int) uint32 {
	return uint32(c.CDB[i])<<16 | uint32(c.CDB[i+1])<<8 | uint32(c.CDB[i+2])
}
func (c *Command) u32(i int) uint32 { return binary.BigEndian.Uint32(c.CDB[i:]) }
func (c *Command) u64(i int) uint64 { return binary.BigEndian.Uint64(c.CDB[i:]) }
