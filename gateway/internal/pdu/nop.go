package pdu

// NOPOut is a ping from the initiator or its answer to a NOPIn, RFC 7143 section 11.18. ITT is reserved if no answer
// is wanted, and then Immediate is set; TTT is reserved unless it answers a NOPIn.
type NOPOut struct {
	Immediate bool
	LUN       LUN
	ITT       ITT
	TTT       TTT
	InitiatorSNs
	Data []byte // borrowed; ping data to be returned
}

// ParseNOPOut parses a NOP-Out. data is kept.
func ParseNOPOut(h *Header, ahs, data []byte) (NOPOut, error) {
	if err := h.expect(OpNOPOut, ahs, data); err != nil {
		return NOPOut{}, err
	}
	if h.ITT().IsReserved() && !h.Immediate() {
		return NOPOut{}, formatErrorf(RejectInvalidPDUField, "NOP-Out with the reserved tag and not immediate")
	}
	return NOPOut{h.Immediate(), h.LUN(), h.ITT(), h.TTT(), h.initiatorSNs(), data}, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *NOPOut) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpNOPOut, flagFinal, dataLen)
	h.setImmediate(p.Immediate)
	h.putTask(p.LUN, p.ITT, p.TTT)
	h.putInitiatorSNs(p.InitiatorSNs)
	return dst
}

// NOPIn is the target's answer to a NOPOut or a ping of its own, RFC 7143 section 11.19. If it answers, TTT is
// reserved. If it is a ping, ITT is reserved, StatSN is the next one and is not advanced, and TTT is reserved unless
// an answer is wanted, in which case LUN must be a valid LUN.
type NOPIn struct {
	LUN LUN
	ITT ITT
	TTT TTT
	TargetSNs
	Data []byte // borrowed; ping data returned
}

// ParseNOPIn parses a NOP-In. data is kept.
func ParseNOPIn(h *Header, ahs, data []byte) (NOPIn, error) {
	if err := h.expect(OpNOPIn, ahs, data); err != nil {
		return NOPIn{}, err
	}
	return NOPIn{h.LUN(), h.ITT(), h.TTT(), h.targetSNs(), data}, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *NOPIn) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpNOPIn, flagFinal, dataLen)
	h.putTask(p.LUN, p.ITT, p.TTT)
	h.putTargetSNs(p.TargetSNs)
	return dst
}
