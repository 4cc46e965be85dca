package xcopy

import "encoding/binary"

// Status is COPY MANAGER STATUS (SPC-4 6.24).
type Status byte

// Values of Status.
const (
	InProgress Status = 0
	Completed  Status = 1
	Failed     Status = 2
)

// Result is what there is to be told of one EXTENDED COPY.
type Result struct {
	Status   Status
	Segments uint16 // segments that are done, or begun
	Bytes    uint32 // bytes written
	// CommandStatus is the SCSI status that the command ended with, and Sense its sense data, which need not be there.
	CommandStatus byte
	Sense         []byte
}

// AppendStatus appends the parameter data of COPY STATUS (SPC-4 6.24):
//
//	0 AVAILABLE DATA(4)  4 HDD(7) COPY MANAGER STATUS(6..0)  5 SEGMENTS PROCESSED(2)  7 UNITS (0: bytes)  8 COUNT(4)
func (r *Result) AppendStatus(p []byte) []byte {
	p = append(p, 0, 0, 0, 8, byte(r.Status))
	p = binary.BigEndian.AppendUint16(p, r.Segments)
	p = append(p, 0)
	return binary.BigEndian.AppendUint32(p, r.Bytes)
}

// AppendFailure appends the parameter data of FAILED SEGMENT DETAILS (SPC-4 6.26), of which there is nothing but the
// length when the command did not fail:
//
//	0 AVAILABLE DATA(4)  4 reserved(52)  56 COMMAND STATUS  57 reserved  58 SENSE DATA LENGTH(2)  60 sense data
func (r *Result) AppendFailure(p []byte) []byte {
	if r.Status != Failed {
		return append(p, 0, 0, 0, 0)
	}
	p = binary.BigEndian.AppendUint32(p, uint32(56+len(r.Sense)))
	p = append(p, make([]byte, 52)...)
	p = append(p, r.CommandStatus, 0)
	p = binary.BigEndian.AppendUint16(p, uint16(len(r.Sense)))
	return append(p, r.Sense...)
}

// ConcurrentMax is how many copies one I_T nexus may have under way on one logical unit, and how many results are kept.
const ConcurrentMax = 16

// AppendOperatingParameters appends the parameter data of OPERATING PARAMETERS (SPC-4 6.25). A list identifier need not
// be given (SNLID), there is no inline data and none is held.
func AppendOperatingParameters(p []byte) []byte {
	start := len(p)
	p = append(p, make([]byte, 44)...)
	d := p[start:]
	d[4] = 0x01 // SNLID
	binary.BigEndian.PutUint16(d[8:], CSCDMax)
	binary.BigEndian.PutUint16(d[10:], SegmentMax)
	binary.BigEndian.PutUint32(d[12:], ListMax)
	binary.BigEndian.PutUint32(d[16:], SegmentBytesMax)
	binary.BigEndian.PutUint16(d[34:], ConcurrentMax) // TOTAL CONCURRENT COPIES
	d[36] = ConcurrentMax                             // MAXIMUM CONCURRENT COPIES
	d[37] = Granularity
	types := [...]byte{typeBlocks, typeOffset, typeCSCD}
	d[43] = byte(len(types))
	p = append(p, types[:]...)
	binary.BigEndian.PutUint32(p[start:], uint32(len(p)-start-4))
	return p
}
