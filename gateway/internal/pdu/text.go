package pdu

// TextRequest is RFC 7143 section 11.10. TTT is reserved in the first request of an exchange and repeats the
// response's in those that follow.
type TextRequest struct {
	Immediate bool
	Final     bool // F: nothing more to send
	Continue  bool // C: the text goes on in the next request; never with Final
	LUN       LUN  // repeats the response's if TTT is not reserved
	ITT       ITT
	TTT       TTT
	InitiatorSNs
	Data []byte // borrowed; text
}

// ParseTextRequest parses a Text Request. data is kept.
func ParseTextRequest(h *Header, ahs, data []byte) (TextRequest, error) {
	if err := h.expect(OpTextRequest, ahs, data); err != nil {
		return TextRequest{}, err
	}
	if err := h.expectITT(); err != nil {
		return TextRequest{}, err
	}
	p := TextRequest{
		h.Immediate(), h.Final(), h[1]&flagContinue != 0, h.LUN(), h.ITT(), h.TTT(), h.initiatorSNs(), data,
	}
	if p.Final && p.Continue {
		return TextRequest{}, formatErrorf(RejectInvalidPDUField, "Text Request with F and C")
	}
	return p, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *TextRequest) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpTextRequest, bit(p.Final, flagFinal)|bit(p.Continue, flagContinue), dataLen)
	h.setImmediate(p.Immediate)
	h.putTask(p.LUN, p.ITT, p.TTT)
	h.putInitiatorSNs(p.InitiatorSNs)
	return dst
}

// TextResponse is RFC 7143 section 11.11. TTT is reserved iff Final.
type TextResponse struct {
	Final    bool
	Continue bool // C: the text goes on in the next response; never with Final
	LUN      LUN
	ITT      ITT
	TTT      TTT
	TargetSNs
	Data []byte // borrowed; text
}

// ParseTextResponse parses a Text Response. data is kept.
func ParseTextResponse(h *Header, ahs, data []byte) (TextResponse, error) {
	if err := h.expect(OpTextResponse, ahs, data); err != nil {
		return TextResponse{}, err
	}
	return TextResponse{
		h.Final(), h[1]&flagContinue != 0, h.LUN(), h.ITT(), h.TTT(), h.targetSNs(), data,
	}, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *TextResponse) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpTextResponse, bit(p.Final, flagFinal)|bit(p.Continue, flagContinue), dataLen)
	h.putTask(p.LUN, p.ITT, p.TTT)
	h.putTargetSNs(p.TargetSNs)
	return dst
}
