package pdu

// Reject tells the initiator that a PDU was not accepted, RFC 7143 section 11.17. Its data segment is the header of
// that PDU.
type Reject struct {
	Reason RejectReason
	TargetSNs
	DataSN DataSN // or R2TSN, valid for a rejected Data/R2T SNACK
	Data   []byte // borrowed; the BHS of the rejected PDU
}

// RejectOf returns a Reject of the PDU with header h. Its Data is h itself, borrowed.
func RejectOf(h *Header, reason RejectReason) Reject { return Reject{Reason: reason, Data: h[:]} }

// ParseReject parses a Reject. data is kept.
func ParseReject(h *Header, ahs, data []byte) (Reject, error) {
	if err := h.expect(OpReject, ahs, data); err != nil {
		return Reject{}, err
	}
	return Reject{RejectReason(h[2]), h.targetSNs(), DataSN(h.u32(36)), data}, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *Reject) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpReject, flagFinal, dataLen)
	h[2] = byte(p.Reason)
	h.put32(16, ReservedTag)
	h.putTargetSNs(p.TargetSNs)
	h.put32(36, uint32(p.DataSN))
	return dst
}
