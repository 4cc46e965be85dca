package pdu

import "fmt"

// TMFFunction is a task management function, RFC 7143 section 11.5.1 and RFC 7144 section 4.
type TMFFunction uint8

// The task management functions.
const (
	TMFAbortTask        TMFFunction = 1
	TMFAbortTaskSet     TMFFunction = 2
	TMFClearACA         TMFFunction = 3
	TMFClearTaskSet     TMFFunction = 4
	TMFLogicalUnitReset TMFFunction = 5
	TMFTargetWarmReset  TMFFunction = 6
	TMFTargetColdReset  TMFFunction = 7
	TMFTaskReassign     TMFFunction = 8
	TMFQueryTask        TMFFunction = 9
	TMFQueryTaskSet     TMFFunction = 10
	TMFITNexusReset     TMFFunction = 11
	TMFQueryAsyncEvent  TMFFunction = 12
)

func (f TMFFunction) String() string {
	switch f {
	case TMFAbortTask:
		return "ABORT TASK"
	case TMFAbortTaskSet:
		return "ABORT TASK SET"
	case TMFClearACA:
		return "CLEAR ACA"
	case TMFClearTaskSet:
		return "CLEAR TASK SET"
	case TMFLogicalUnitReset:
		return "LOGICAL UNIT RESET"
	case TMFTargetWarmReset:
		return "TARGET WARM RESET"
	case TMFTargetColdReset:
		return "TARGET COLD RESET"
	case TMFTaskReassign:
		return "TASK REASSIGN"
	case TMFQueryTask:
		return "QUERY TASK"
	case TMFQueryTaskSet:
		return "QUERY TASK SET"
	case TMFITNexusReset:
		return "I_T NEXUS RESET"
	case TMFQueryAsyncEvent:
		return "QUERY ASYNCHRONOUS EVENT"
	}
	return fmt.Sprintf("function %d", uint8(f))
}

// Resets reports whether the function resets logical units.
func (f TMFFunction) Resets() bool {
	return f == TMFLogicalUnitReset || f == TMFTargetWarmReset || f == TMFTargetColdReset
}

// HasLUN reports whether the function is about one logical unit, so that the LUN field is valid.
func (f TMFFunction) HasLUN() bool {
	switch f {
	case TMFTargetWarmReset, TMFTargetColdReset, TMFTaskReassign, TMFITNexusReset:
		return false
	}
	return true
}

// maskFunction is the function in byte 1.
const maskFunction = 0x7f

// TMFRequest asks for a task management function, RFC 7143 section 11.5. Function may be one that is not defined; the
// answer is then TMFNotSupported.
type TMFRequest struct {
	Immediate bool
	Function  TMFFunction
	LUN       LUN
	ITT       ITT
	// ReferencedTaskTag and RefCmdSN name the task of ABORT TASK, TASK REASSIGN (tag only) and QUERY TASK.
	ReferencedTaskTag ITT
	InitiatorSNs
	RefCmdSN  CmdSN
	ExpDataSN DataSN // of TASK REASSIGN
}

// ParseTMFRequest parses a Task Management Function Request.
func ParseTMFRequest(h *Header, ahs, data []byte) (TMFRequest, error) {
	if err := h.expectNoData(OpTMFRequest, ahs, data); err != nil {
		return TMFRequest{}, err
	}
	if err := h.expectITT(); err != nil {
		return TMFRequest{}, err
	}
	return TMFRequest{
		h.Immediate(), TMFFunction(h[1] & maskFunction), h.LUN(), h.ITT(), ITT(h.u32(20)), h.initiatorSNs(),
		CmdSN(h.u32(32)), DataSN(h.u32(36)),
	}, nil
}

// AppendHeader appends the BHS; dataLen must be 0.
func (p *TMFRequest) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpTMFRequest, flagFinal|byte(p.Function)&maskFunction, mustBeZero(dataLen))
	h.setImmediate(p.Immediate)
	h.putTask(p.LUN, p.ITT, TTT(p.ReferencedTaskTag))
	h.putInitiatorSNs(p.InitiatorSNs)
	h.put32(32, uint32(p.RefCmdSN))
	h.put32(36, uint32(p.ExpDataSN))
	return dst
}

// TMFResult is the outcome of a task management function, RFC 7143 section 11.6.1 and RFC 7144 section 4.
type TMFResult uint8

// The outcomes.
const (
	TMFComplete             TMFResult = 0
	TMFNoSuchTask           TMFResult = 1
	TMFNoSuchLUN            TMFResult = 2
	TMFTaskStillAllegiant   TMFResult = 3
	TMFReassignNotSupported TMFResult = 4
	TMFNotSupported         TMFResult = 5
	TMFAuthorizationFailed  TMFResult = 6
	TMFSucceeded            TMFResult = 7 // of a query: the task, or an event, exists; RFC 7144
	TMFRejected             TMFResult = 255
)

// TMFResponse answers a TMFRequest, RFC 7143 section 11.6.
type TMFResponse struct {
	Result TMFResult
	// AdditionalInfo is the additional response information of QUERY ASYNCHRONOUS EVENT, RFC 7144 section 4.2.
	AdditionalInfo [3]byte
	ITT            ITT
	TargetSNs
}

// ParseTMFResponse parses a Task Management Function Response.
func ParseTMFResponse(h *Header, ahs, data []byte) (TMFResponse, error) {
	if err := h.expectNoData(OpTMFResponse, ahs, data); err != nil {
		return TMFResponse{}, err
	}
	return TMFResponse{TMFResult(h[2]), [3]byte(h[8:]), h.ITT(), h.targetSNs()}, nil
}

// AppendHeader appends the BHS; dataLen must be 0.
func (p *TMFResponse) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpTMFResponse, flagFinal, mustBeZero(dataLen))
	h[2] = byte(p.Result)
	copy(h[8:], p.AdditionalInfo[:])
	h.put32(16, uint32(p.ITT))
	h.putTargetSNs(p.TargetSNs)
	return dst
}
