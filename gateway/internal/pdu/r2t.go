package pdu

// R2T asks the initiator for a part of a write, RFC 7143 section 11.8. StatSN is the next one and is not advanced.
type R2T struct {
	LUN LUN
	ITT ITT
	TTT TTT // never reserved
	TargetSNs
	R2TSN        R2TSN
	BufferOffset uint32 // from the start of the write, in bytes
	// DesiredDataTransferLength is 1 to MaxBurstLength bytes.
	DesiredDataTransferLength uint32
}

// ParseR2T parses an R2T.
func ParseR2T(h *Header, ahs, data []byte) (R2T, error) {
	if err := h.expectNoData(OpR2T, ahs, data); err != nil {
		return R2T{}, err
	}
	p := R2T{h.LUN(), h.ITT(), h.TTT(), h.targetSNs(), R2TSN(h.u32(36)), h.u32(40), h.u32(44)}
	if p.TTT.IsReserved() || p.DesiredDataTransferLength == 0 {
		return R2T{}, formatErrorf(RejectInvalidPDUField, "R2T with TTT %v for %d bytes", p.TTT, p.DesiredDataTransferLength)
	}
	return p, nil
}

// AppendHeader appends the BHS; dataLen must be 0.
func (p *R2T) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpR2T, flagFinal, mustBeZero(dataLen))
	h.putTask(p.LUN, p.ITT, p.TTT)
	h.putTargetSNs(p.TargetSNs)
	h.put32(36, uint32(p.R2TSN))
	h.put32(40, p.BufferOffset)
	h.put32(44, p.DesiredDataTransferLength)
	return dst
}
