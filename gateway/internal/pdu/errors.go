package pdu

import "fmt"

// RejectReason is the reason code of a Reject, RFC 7143 section 11.17.1.
type RejectReason uint8

// The reason codes.
const (
	RejectDataDigestError     RejectReason = 0x02
	RejectSNACK               RejectReason = 0x03
	RejectProtocolError       RejectReason = 0x04
	RejectCommandNotSupported RejectReason = 0x05
	RejectTooManyImmediate    RejectReason = 0x06
	RejectTaskInProgress      RejectReason = 0x07
	RejectInvalidDataACK      RejectReason = 0x08
	RejectInvalidPDUField     RejectReason = 0x09
	RejectLongOperation       RejectReason = 0x0a
	RejectWaitingForLogout    RejectReason = 0x0c
	rejectNegotiationReset    RejectReason = 0x0b // deprecated by RFC 7143, never sent
)

func (r RejectReason) String() string {
	switch r {
	case RejectDataDigestError:
		return "data digest error"
	case RejectSNACK:
		return "SNACK reject"
	case RejectProtocolError:
		return "protocol error"
	case RejectCommandNotSupported:
		return "command not supported"
	case RejectTooManyImmediate:
		return "too many immediate commands"
	case RejectTaskInProgress:
		return "task in progress"
	case RejectInvalidDataACK:
		return "invalid data ACK"
	case RejectInvalidPDUField:
		return "invalid PDU field"
	case RejectLongOperation:
		return "long operation reject"
	case rejectNegotiationReset:
		return "negotiation reset"
	case RejectWaitingForLogout:
		return "waiting for logout"
	}
	return fmt.Sprintf("reason %#02x", uint8(r))
}

// FormatError says that a PDU breaks the layout rules of RFC 7143 section 11 or a negotiated limit. Reason is what a
// Reject says about it; section 7.7 then has the connection closed at ErrorRecoveryLevel 0.
type FormatError struct {
	Reason RejectReason
	Detail string
}

func (e *FormatError) Error() string { return "iSCSI " + e.Reason.String() + ": " + e.Detail }

func formatErrorf(r RejectReason, format string, args ...any) *FormatError {
	return &FormatError{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// DigestError says that a digest does not match. A bad header digest ends the connection, because the lengths in the
// header can not be believed; a bad data digest is answered with a Reject (RFC 7143 section 7.8).
type DigestError struct {
	Header    bool // the header digest; false: the data digest
	Got, Want uint32
}

func (e *DigestError) Error() string {
	part := "data"
	if e.Header {
		part = "header"
	}
	return fmt.Sprintf("iSCSI %s digest %08x, computed %08x", part, e.Got, e.Want)
}
