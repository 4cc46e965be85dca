package odx

import "encoding/binary"

// Status is COPY OPERATION STATUS (SPC-4 table 188).
type Status byte

// Values of Status.
const (
	Completed  Status = 0x01
	Failed     Status = 0x02
	Foreground Status = 0x11 // under way
	Terminated Status = 0x60 // aborted
)

// Service actions of the commands that an Information is about.
const (
	ActionPopulate = 0x10
	ActionWrite    = 0x11
)

// Information is what RECEIVE ROD TOKEN INFORMATION tells of one command.
type Information struct {
	Action        byte // ActionPopulate or ActionWrite
	Status        Status
	CommandStatus byte   // the SCSI status that the command ended with
	Sense         []byte // its sense data, at most 255 bytes
	Blocks        uint64 // logical blocks that the token stands for, or that were written
	Token         *Token // of a POPULATE TOKEN that completed
}

// unitsBlocks is TRANSFER COUNT UNITS: logical blocks of the unit that got the command.
const unitsBlocks = 0xF1

// Append appends the parameter data (SPC-4 6.28):
//
//	 0 AVAILABLE DATA(4)  4 RESPONSE TO SERVICE ACTION  5 COPY OPERATION STATUS  6 OPERATION COUNTER(2)
//	 8 ESTIMATED STATUS UPDATE DELAY(4)  12 COMPLETION STATUS  13 LENGTH OF SENSE DATA FIELD  14 SENSE DATA LENGTH
//	15 TRANSFER COUNT UNITS  16 TRANSFER COUNT(8)  24 SEGMENTS PROCESSED(2)  26 reserved(6)  32 sense data
//	 . ROD TOKEN DESCRIPTORS LENGTH(4)  { reserved(2) token(512) }
func (i *Information) Append(p []byte) []byte {
	start := len(p)
	p = append(p, make([]byte, 32)...)
	d := p[start:]
	d[4], d[5] = i.Action, byte(i.Status)
	// Nothing is to come of a command that ended; how long another one takes is not known.
	delay := uint32(0xFFFFFFFF)
	if i.Status == Foreground {
		delay = 0xFFFFFFFE
	}
	binary.BigEndian.PutUint32(d[8:], delay)
	d[12], d[13], d[14] = i.CommandStatus, byte(len(i.Sense)), byte(len(i.Sense))
	d[15] = unitsBlocks
	binary.BigEndian.PutUint64(d[16:], i.Blocks)
	p = append(p, i.Sense...)
	if i.Token == nil {
		p = append(p, 0, 0, 0, 0)
	} else {
		p = binary.BigEndian.AppendUint32(p, 2+TokenLength)
		p = append(append(p, 0, 0), i.Token[:]...)
	}
	binary.BigEndian.PutUint32(p[start:], uint32(len(p)-start-4))
	return p
}
