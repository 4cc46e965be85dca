package login

import (
	"fmt"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// Status is a login status: Status-Class in the high byte, Status-Detail in the low one, RFC 7143 section 11.13.5.
type Status uint16

// The login statuses.
const (
	StatusSuccess                Status = 0x0000
	StatusMovedTemporarily       Status = 0x0101
	StatusMovedPermanently       Status = 0x0102
	StatusInitiatorError         Status = 0x0200
	StatusAuthenticationFailure  Status = 0x0201
	StatusAuthorizationFailure   Status = 0x0202
	StatusNotFound               Status = 0x0203
	StatusTargetRemoved          Status = 0x0204
	StatusUnsupportedVersion     Status = 0x0205
	StatusTooManyConnections     Status = 0x0206
	StatusMissingParameter       Status = 0x0207
	StatusCannotIncludeInSession Status = 0x0208
	StatusSessionTypeUnsupported Status = 0x0209
	StatusSessionDoesNotExist    Status = 0x020a
	StatusInvalidDuringLogin     Status = 0x020b
	StatusTargetError            Status = 0x0300
	StatusServiceUnavailable     Status = 0x0301
	StatusOutOfResources         Status = 0x0302
)

// Class returns the Status-Class: 0 success, 1 redirection, 2 initiator error, 3 target error.
func (s Status) Class() uint8 { return uint8(s >> 8) }

// Detail returns the Status-Detail.
func (s Status) Detail() uint8 { return uint8(s) }

func (s Status) String() string {
	switch s {
	case StatusSuccess:
		return "success"
	case StatusMovedTemporarily:
		return "target moved temporarily"
	case StatusMovedPermanently:
		return "target moved permanently"
	case StatusInitiatorError:
		return "initiator error"
	case StatusAuthenticationFailure:
		return "authentication failure"
	case StatusAuthorizationFailure:
		return "authorization failure"
	case StatusNotFound:
		return "target not found"
	case StatusTargetRemoved:
		return "target removed"
	case StatusUnsupportedVersion:
		return "unsupported version"
	case StatusTooManyConnections:
		return "too many connections"
	case StatusMissingParameter:
		return "missing parameter"
	case StatusCannotIncludeInSession:
		return "can not include in session"
	case StatusSessionTypeUnsupported:
		return "session type not supported"
	case StatusSessionDoesNotExist:
		return "session does not exist"
	case StatusInvalidDuringLogin:
		return "invalid during login"
	case StatusTargetError:
		return "target error"
	case StatusServiceUnavailable:
		return "service unavailable"
	case StatusOutOfResources:
		return "out of resources"
	}
	return fmt.Sprintf("login status %#04x", uint16(s))
}

// StatusError is a login that ends without success. Status is the answer to the initiator; Detail is for the log of
// the target and never sent, because it may say which of user and secret was wrong.
type StatusError struct {
	Status Status
	Detail string
	// Address is where the target moved, as TargetAddress wants it ("10.0.0.1:3260"), for the two statuses of class 1.
	Address string
}

func (e *StatusError) Error() string { return "iSCSI login: " + e.Status.String() + ": " + e.Detail }

func failf(s Status, format string, args ...any) *StatusError {
	return &StatusError{Status: s, Detail: fmt.Sprintf(format, args...)}
}

// Reject returns the response to req that ends a login with e. The connection is to be closed after it was sent. It is
// for what the portal decides before or instead of Receive, for example StatusOutOfResources.
func Reject(req *pdu.LoginRequest, e *StatusError) pdu.LoginResponse {
	resp := pdu.LoginResponse{
		CSG:          req.CSG,
		ISID:         req.ISID,
		TSIH:         req.TSIH,
		ITT:          req.ITT,
		StatusClass:  e.Status.Class(),
		StatusDetail: e.Status.Detail(),
	}
	resp.StatSN, resp.ExpCmdSN, resp.MaxCmdSN = req.ExpStatSN, req.CmdSN, req.CmdSN
	if e.Address != "" {
		resp.Data = appendPair(nil, keyTargetAddress, e.Address)
	}
	return resp
}
