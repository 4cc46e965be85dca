package pdu

// LogoutReason says what a Logout Request wants, RFC 7143 section 11.14.1.
type LogoutReason uint8

// The reasons.
const (
	LogoutCloseSession      LogoutReason = 0
	LogoutCloseConnection   LogoutReason = 1
	LogoutRemoveForRecovery LogoutReason = 2
)

// LogoutRequest is RFC 7143 section 11.14.
type LogoutRequest struct {
	Immediate bool
	Reason    LogoutReason
	ITT       ITT
	CID       CID // of the connection to close; not valid with LogoutCloseSession
	InitiatorSNs
}

// ParseLogoutRequest parses a Logout Request.
func ParseLogoutRequest(h *Header, ahs, data []byte) (LogoutRequest, error) {
	if err := h.expectNoData(OpLogoutRequest, ahs, data); err != nil {
		return LogoutRequest{}, err
	}
	if err := h.expectITT(); err != nil {
		return LogoutRequest{}, err
	}
	p := LogoutRequest{
		h.Immediate(), LogoutReason(h[1] & maskFunction), h.ITT(), CID(h.u16(20)), h.initiatorSNs(),
	}
	if p.Reason > LogoutRemoveForRecovery {
		return LogoutRequest{}, formatErrorf(RejectInvalidPDUField, "Logout Request with reason %d", p.Reason)
	}
	return p, nil
}

// AppendHeader appends the BHS; dataLen must be 0.
func (p *LogoutRequest) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpLogoutRequest, flagFinal|byte(p.Reason)&maskFunction, mustBeZero(dataLen))
	h.setImmediate(p.Immediate)
	h.put32(16, uint32(p.ITT))
	h.put16(20, uint16(p.CID))
	h.putInitiatorSNs(p.InitiatorSNs)
	return dst
}

// LogoutResult answers a Logout Request, RFC 7143 section 11.15.1.
type LogoutResult uint8

// The results.
const (
	LogoutClosed               LogoutResult = 0
	LogoutNoSuchCID            LogoutResult = 1
	LogoutRecoveryNotSupported LogoutResult = 2
	LogoutCleanupFailed        LogoutResult = 3
)

// LogoutResponse is RFC 7143 section 11.15.
type LogoutResponse struct {
	Result LogoutResult
	ITT    ITT
	TargetSNs
	Time2Wait   uint16 // seconds
	Time2Retain uint16 // seconds
}

// ParseLogoutResponse parses a Logout Response.
func ParseLogoutResponse(h *Header, ahs, data []byte) (LogoutResponse, error) {
	if err := h.expectNoData(OpLogoutResponse, ahs, data); err != nil {
		return LogoutResponse{}, err
	}
	return LogoutResponse{LogoutResult(h[2]), h.ITT(), h.targetSNs(), h.u16(40), h.u16(42)}, nil
}

// AppendHeader appends the BHS; dataLen must be 0.
func (p *LogoutResponse) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpLogoutResponse, flagFinal, mustBeZero(dataLen))
	h[2] = byte(p.Result)
	h.put32(16, uint32(p.ITT))
	h.putTargetSNs(p.TargetSNs)
	h.put16(40, p.Time2Wait)
	h.put16(42, p.Time2Retain)
	return dst
}
