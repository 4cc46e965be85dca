package pdu

const (
	flagAck    = 0x40 // A
	flagStatus = 0x01 // S
)

// DataIn carries data to the initiator, RFC 7143 section 11.7. The last one of a command may carry its status too, if
// that is a good one.
type DataIn struct {
	Final bool // end of a sequence; set if HasStatus
	// Acknowledge asks for a DataACK SNACK; only at ErrorRecoveryLevel > 0. TTT and LUN are then valid.
	Acknowledge bool
	// HasStatus (S) says that Status, Residual and StatSN are valid.
	HasStatus bool
	Status    uint8 // SCSI status
	LUN       LUN   // valid iff TTT is not reserved
	ITT       ITT
	TTT       TTT // reserved unless Acknowledge
	TargetSNs
	DataSN       DataSN
	BufferOffset uint32 // of the data, from the start of the read, in bytes
	Residual     Residual
	Data         []byte // borrowed
}

// ParseDataIn parses a Data-In. data is kept.
func ParseDataIn(h *Header, ahs, data []byte) (DataIn, error) {
	if err := h.expect(OpDataIn, ahs, data); err != nil {
		return DataIn{}, err
	}
	p := DataIn{
		Final:        h.Final(),
		Acknowledge:  h[1]&flagAck != 0,
		HasStatus:    h[1]&flagStatus != 0,
		LUN:          h.LUN(),
		ITT:          h.ITT(),
		TTT:          h.TTT(),
		TargetSNs:    h.targetSNs(),
		DataSN:       DataSN(h.u32(36)),
		BufferOffset: h.u32(40),
		Data:         data,
	}
	if !p.HasStatus {
		p.StatSN = 0
		return p, nil
	}
	if !p.Final {
		return DataIn{}, formatErrorf(RejectInvalidPDUField, "Data-In with status and without F")
	}
	p.Status = h[3]
	var err error
	if p.Residual, err = parseResidual(h[1]&flagOverflow != 0, h[1]&flagUnderflow != 0, h.u32(44)); err != nil {
		return DataIn{}, err
	}
	return p, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes. Status and Residual are written only if
// HasStatus, which implies Final.
func (p *DataIn) AppendHeader(dst []byte, dataLen int) []byte {
	flags := bit(p.Final || p.HasStatus, flagFinal) | bit(p.Acknowledge, flagAck)
	if p.HasStatus {
		flags |= flagStatus | p.Residual.flags(flagOverflow, flagUnderflow)
	}
	dst, h := appendBHS(dst, OpDataIn, flags, dataLen)
	h.putTask(p.LUN, p.ITT, p.TTT)
	h.putTargetSNs(p.TargetSNs)
	h.put32(36, uint32(p.DataSN))
	h.put32(40, p.BufferOffset)
	if p.HasStatus {
		h[3] = p.Status
		h.put32(44, p.Residual.Count)
	} else {
		h.put32(24, 0)
	}
	return dst
}

// The SCSI statuses that may travel in a Data-In, RFC 7143 section 11.7.4.
const (
	statusGood                     = 0x00
	statusConditionMet             = 0x04
	statusIntermediate             = 0x10
	statusIntermediateConditionMet = 0x14
)

// FitsDataIn reports whether the response can be sent as the status of the command's last Data-In instead: it is
// completed with a good status and has nothing that a Data-In can not carry.
func (p *SCSIResponse) FitsDataIn() bool {
	switch p.Status {
	case statusGood, statusConditionMet, statusIntermediate, statusIntermediateConditionMet:
	default:
		return false
	}
	return p.Response == ResponseCompleted && p.StatusQualifier == 0 && p.SNACKTag == 0 &&
		p.BidiResidual.Kind == ResidualNone && len(p.Data) == 0
}

// ToDataIn moves the response into d, the command's last Data-In, and reports whether it could (FitsDataIn); if not, d
// is unchanged.
func (p *SCSIResponse) ToDataIn(d *DataIn) bool {
	if !p.FitsDataIn() {
		return false
	}
	d.Final, d.HasStatus = true, true
	d.Status, d.Residual, d.TargetSNs = p.Status, p.Residual, p.TargetSNs
	return true
}
