package pdu

import "encoding/binary"

const (
	// MaxCDBLen is the longest CDB that is accepted, in bytes: the most that a variable-length CDB can say (SPC-5).
	MaxCDBLen = 260
	// baseCDBLen is how much of the CDB is in the BHS.
	baseCDBLen = 16
)

// TaskAttr is the task attribute of a SCSI Command, RFC 7143 section 11.3.1.
type TaskAttr uint8

// The task attributes.
const (
	AttrUntagged    TaskAttr = 0
	AttrSimple      TaskAttr = 1
	AttrOrdered     TaskAttr = 2
	AttrHeadOfQueue TaskAttr = 3
	AttrACA         TaskAttr = 4
)

const (
	flagRead     = 0x40
	flagWrite    = 0x20
	maskAttr     = 0x07
	shiftPri     = 4
	ahsTypeCDB   = 1
	ahsTypeBidi  = 2
	maskAHSType  = 0x3f
	ahsHeaderLen = 3 // AHSLength and AHSType
	bidiAHSLen   = 5 // the AHSLength of a bidirectional read length: a reserved byte and 4 bytes
)

// SCSICommand carries a CDB, RFC 7143 section 11.3, and up to one data segment of immediate data.
//
// Additional header segments follow the BHS, each padded to 4 bytes:
//
//	AHSLength (2) | AHSType = 1 (1) | reserved (1) | bytes 16.. of the CDB       AHSLength = CDB length - 15
//	AHSLength (2) | AHSType = 2 (1) | reserved (1) | expected read length (4)    AHSLength = 5
type SCSICommand struct {
	Immediate bool
	Final     bool // no unsolicited Data-Out follows
	Read      bool // data to the initiator is expected
	Write     bool // data from the initiator is expected
	Attr      TaskAttr
	Priority  uint8 // 0 to 15, 0 is none; RFC 7144 section 5.1
	LUN       LUN
	ITT       ITT
	// ExpectedDataTransferLength is in bytes: of the write if it is one, else of the read.
	ExpectedDataTransferLength uint32
	InitiatorSNs
	CDB [baseCDBLen]byte
	// ExtendedCDB is what follows the first 16 bytes of a longer CDB, up to MaxCDBLen-16 bytes. Borrowed.
	ExtendedCDB []byte
	// Bidirectional says that BidiReadLength, in bytes, is valid; Read and Write are then set.
	Bidirectional  bool
	BidiReadLength uint32
	Data           []byte // borrowed; immediate data
}

// ParseSCSICommand parses a SCSI Command. ahs and data are kept.
func ParseSCSICommand(h *Header, ahs, data []byte) (SCSICommand, error) {
	if err := h.expect(OpSCSICommand, ahs, data); err != nil {
		return SCSICommand{}, err
	}
	if err := h.expectITT(); err != nil {
		return SCSICommand{}, err
	}
	p := SCSICommand{
		Immediate:                  h.Immediate(),
		Final:                      h.Final(),
		Read:                       h[1]&flagRead != 0,
		Write:                      h[1]&flagWrite != 0,
		Attr:                       TaskAttr(h[1] & maskAttr),
		Priority:                   h[2] >> shiftPri,
		LUN:                        h.LUN(),
		ITT:                        h.ITT(),
		ExpectedDataTransferLength: h.u32(20),
		InitiatorSNs:               h.initiatorSNs(),
		CDB:                        [baseCDBLen]byte(h[32:]),
		Data:                       data,
	}
	switch {
	case p.Attr > AttrACA:
		return SCSICommand{}, formatErrorf(RejectInvalidPDUField, "SCSI Command with task attribute %d", p.Attr)
	case !p.Write && !p.Final:
		return SCSICommand{}, formatErrorf(RejectInvalidPDUField, "SCSI Command with neither W nor F")
	case !p.Write && len(data) != 0:
		return SCSICommand{}, formatErrorf(RejectInvalidPDUField, "SCSI Command with %d bytes of immediate data and no W", len(data))
	}
	if err := p.parseAHS(ahs); err != nil {
		return SCSICommand{}, err
	}
	return p, nil
}

// parseAHS reads the additional header segments. Each turn consumes at least 4 bytes.
func (p *SCSICommand) parseAHS(ahs []byte) error {
	for len(ahs) > 0 {
		if len(ahs) < ahsHeaderLen+1 {
			return formatErrorf(RejectInvalidPDUField, "AHS of %d bytes", len(ahs))
		}
		n, typ := int(binary.BigEndian.Uint16(ahs)), ahs[2]&maskAHSType
		size := ahsHeaderLen + n
		size += PadLen(size)
		if n < 1 || size > len(ahs) {
			return formatErrorf(RejectInvalidPDUField, "AHSLength %d with %d bytes left", n, len(ahs))
		}
		body := ahs[ahsHeaderLen+1 : ahsHeaderLen+n : ahsHeaderLen+n] // without the reserved byte
		switch {
		case typ == ahsTypeCDB && p.ExtendedCDB == nil && len(body) > 0 && len(body) <= MaxCDBLen-baseCDBLen:
			p.ExtendedCDB = body
		case typ == ahsTypeBidi && !p.Bidirectional && n == bidiAHSLen && p.Read && p.Write:
			p.Bidirectional, p.BidiReadLength = true, binary.BigEndian.Uint32(body)
		default:
			return formatErrorf(RejectInvalidPDUField, "AHS of type %d with %d bytes is unknown, repeated or does not fit the command", typ, n)
		}
		ahs = ahs[size:]
	}
	return nil
}

// CDBLen returns the length of the CDB as transferred: 16 bytes and the extension.
func (p *SCSICommand) CDBLen() int { return baseCDBLen + len(p.ExtendedCDB) }

// AppendCDB appends the whole CDB, CDBLen bytes.
func (p *SCSICommand) AppendCDB(dst []byte) []byte {
	return append(append(dst, p.CDB[:]...), p.ExtendedCDB...)
}

// AppendHeader appends the BHS for a data segment of dataLen bytes, and the AHS. It panics if ExtendedCDB exceeds
// MaxCDBLen-16 bytes.
func (p *SCSICommand) AppendHeader(dst []byte, dataLen int) []byte {
	if len(p.ExtendedCDB) > MaxCDBLen-baseCDBLen {
		panic("pdu: CDB longer than MaxCDBLen")
	}
	at := len(dst)
	flags := bit(p.Final, flagFinal) | bit(p.Read, flagRead) | bit(p.Write, flagWrite) | byte(p.Attr)&maskAttr
	dst, h := appendBHS(dst, OpSCSICommand, flags, dataLen)
	h.setImmediate(p.Immediate)
	h[2] = p.Priority << shiftPri
	copy(h[8:16], p.LUN[:])
	h.put32(16, uint32(p.ITT))
	h.put32(20, p.ExpectedDataTransferLength)
	h.putInitiatorSNs(p.InitiatorSNs)
	copy(h[32:], p.CDB[:])
	if n := len(p.ExtendedCDB); n > 0 {
		dst = binary.BigEndian.AppendUint16(dst, uint16(n+1))
		dst = append(dst, ahsTypeCDB, 0)
		dst = append(dst, p.ExtendedCDB...)
		dst = append(dst, Padding(n)...)
	}
	if p.Bidirectional {
		dst = binary.BigEndian.AppendUint16(dst, bidiAHSLen)
		dst = append(dst, ahsTypeBidi, 0)
		dst = binary.BigEndian.AppendUint32(dst, p.BidiReadLength)
	}
	dst[at+4] = byte((len(dst) - at - BHSLen) / 4)
	return dst
}
