package pdu

// SNACKType says what a SNACK asks for or acknowledges, RFC 7143 section 11.16.1.
type SNACKType uint8

// The types.
const (
	SNACKDataR2T SNACKType = 0
	SNACKStatus  SNACKType = 1
	SNACKDataACK SNACKType = 2
	SNACKRData   SNACKType = 3
)

const maskSNACKType = 0x0f

// SNACK asks for PDUs again or acknowledges data, RFC 7143 section 11.16; only at ErrorRecoveryLevel > 0. BegRun is a
// DataSN, R2TSN or StatSN as the type says; RunLength 0 means all from BegRun on.
type SNACK struct {
	Type SNACKType
	LUN  LUN // of DataACK: as in the Data-In
	ITT  ITT // reserved for Status and DataACK
	// TTT is that of the Data-In for DataACK, the SNACK tag for R-Data, and reserved otherwise.
	TTT       TTT
	ExpStatSN StatSN
	BegRun    uint32
	RunLength uint32
}

// ParseSNACK parses a SNACK Request.
func ParseSNACK(h *Header, ahs, data []byte) (SNACK, error) {
	if err := h.expectNoData(OpSNACK, ahs, data); err != nil {
		return SNACK{}, err
	}
	p := SNACK{
		SNACKType(h[1] & maskSNACKType), h.LUN(), h.ITT(), h.TTT(), h.ExpStatSN(), h.u32(40), h.u32(44),
	}
	if p.Type > SNACKRData {
		return SNACK{}, formatErrorf(RejectInvalidPDUField, "SNACK of type %d", p.Type)
	}
	return p, nil
}

// AppendHeader appends the BHS; dataLen must be 0.
func (p *SNACK) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpSNACK, flagFinal|byte(p.Type)&maskSNACKType, mustBeZero(dataLen))
	h.putTask(p.LUN, p.ITT, p.TTT)
	h.put32(28, uint32(p.ExpStatSN))
	h.put32(40, p.BegRun)
	h.put32(44, p.RunLength)
	return dst
}
