package pdu

// AsyncEvent is the event of an AsyncMessage, RFC 7143 section 11.9.1.
type AsyncEvent uint8

// The events. The parameters of AsyncMessage are: for AsyncLogout Param3 = seconds within which to log out; for
// AsyncDropConnection Param1 = CID, and for it and AsyncDropSession Param2 = Time2Wait and Param3 = Time2Retain, in
// seconds; for AsyncNegotiation Param3 = seconds within which to start.
const (
	AsyncSCSI            AsyncEvent = 0 // data segment: sense data, see AppendSenseData
	AsyncLogout          AsyncEvent = 1 // the target asks for a logout
	AsyncDropConnection  AsyncEvent = 2
	AsyncDropSession     AsyncEvent = 3
	AsyncNegotiation     AsyncEvent = 4
	AsyncTasksTerminated AsyncEvent = 5 // all tasks of LUN, by another initiator
	AsyncVendor          AsyncEvent = 255
)

// AsyncMessage tells the initiator of an event, RFC 7143 section 11.9.
type AsyncMessage struct {
	LUN LUN // of AsyncSCSI and AsyncTasksTerminated
	TargetSNs
	Event  AsyncEvent
	VCode  uint8 // of AsyncVendor
	Param1 uint16
	Param2 uint16
	Param3 uint16
	Data   []byte // borrowed
}

// ParseAsyncMessage parses an Asynchronous Message. data is kept.
func ParseAsyncMessage(h *Header, ahs, data []byte) (AsyncMessage, error) {
	if err := h.expect(OpAsyncMessage, ahs, data); err != nil {
		return AsyncMessage{}, err
	}
	return AsyncMessage{
		h.LUN(), h.targetSNs(), AsyncEvent(h[36]), h[37], h.u16(38), h.u16(40), h.u16(42), data,
	}, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *AsyncMessage) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpAsyncMessage, flagFinal, dataLen)
	copy(h[8:], p.LUN[:])
	h.put32(16, ReservedTag)
	h.putTargetSNs(p.TargetSNs)
	h[36], h[37] = byte(p.Event), p.VCode
	h.put16(38, p.Param1)
	h.put16(40, p.Param2)
	h.put16(42, p.Param3)
	return dst
}
