package isns

import (
	"encoding/binary"
	"fmt"
)

// Function is what a message asks for; the reply's has the highest bit set. RFC 4171 section 4.1.3.
type Function uint16

// The functions that are used here.
const (
	DevAttrReg Function = 0x0001
	DevDereg   Function = 0x0004

	replyBit Function = 0x8000
)

// The flags, RFC 4171 section 5.1.4.
const (
	flagClient  = 0x8000
	flagServer  = 0x4000
	flagReplace = 0x1000
	flagLast    = 0x0800
	flagFirst   = 0x0400
)

const (
	version = 1
	// HeaderLen is the length of a PDU's header, in bytes.
	HeaderLen = 12
	// PayloadMax is the longest payload of a PDU, in bytes: 16 bits, a multiple of 4.
	PayloadMax = 1<<16 - 4
	// ReplyMax bounds a reply over all of its PDUs, in bytes.
	ReplyMax = 1 << 20
)

// Request is one message to a server.
type Request struct {
	Function Function
	Replace  bool // of DevAttrReg: what the key names is replaced, not added to
	Payload  []byte
}

// Append appends the request as one PDU with the transaction id.
func (r *Request) Append(b []byte, id uint16) []byte {
	flags := uint16(flagClient | flagFirst | flagLast)
	if r.Replace {
		flags |= flagReplace
	}
	for _, v := range []uint16{version, uint16(r.Function), uint16(len(r.Payload)), flags, id, 0} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return append(b, r.Payload...)
}

// Reply is a server's answer.
type Reply struct {
	Status     Status
	Attributes []Attribute // borrowed from the Reader
}

// Uint32 returns the first attribute of a tag that has 4 bytes.
func (r *Reply) Uint32(tag Tag) (uint32, bool) {
	for _, a := range r.Attributes {
		if a.Tag == tag {
			if v, ok := a.Uint32(); ok {
				return v, true
			}
		}
	}
	return 0, false
}

// Status is the first field of a reply, RFC 4171 section 5.4.
type Status uint32

// The statuses that something is made of here.
const (
	StatusSuccessful         Status = 0
	StatusInvalid            Status = 3
	StatusSourceUnknown      Status = 6
	StatusSourceUnauthorized Status = 8
	StatusNoSuchEntry        Status = 9
)

var statusNames = map[Status]string{
	StatusSuccessful: "successful", 1: "unknown error", 2: "message format error", StatusInvalid: "invalid registration",
	5: "invalid query", StatusSourceUnknown: "source unknown", 7: "source absent", StatusSourceUnauthorized: "source unauthorized",
	StatusNoSuchEntry: "no such entry", 10: "version not supported", 11: "internal error", 12: "busy", 13: "option not understood",
	14: "invalid update", 15: "function not supported", 18: "attribute not implemented", 21: "ESI not available",
	22: "invalid deregistration", 23: "registration feature not supported",
}

func (s Status) String() string {
	if n, ok := statusNames[s]; ok {
		return n
	}
	return fmt.Sprintf("status %d", uint32(s))
}

// StatusError is a reply that refuses.
type StatusError struct{ Status Status }

func (e *StatusError) Error() string { return "iSNS: the server refuses: " + e.Status.String() }

// Reader puts the PDUs of one reply together.
type Reader struct {
	function Function
	id       uint16
	next     uint16 // sequence
	payload  []byte
	want     int  // length of the PDU that was begun
	last     bool // it is the last one
}

// NewReader returns a reader for the reply to a request.
func NewReader(f Function, id uint16) *Reader { return &Reader{function: f | replyBit, id: id} }

// Header takes the header of the next PDU and returns how long its payload is, at most PayloadMax bytes. An error is a
// *FormatError; the connection can not be used any more.
func (r *Reader) Header(h *[HeaderLen]byte) (int, error) {
	field := func(i int) uint16 { return binary.BigEndian.Uint16(h[2*i:]) }
	n, flags := int(field(2)), field(3)
	switch {
	case field(0) != version:
		return 0, formatErrorf("version %d", field(0))
	case Function(field(1)) != r.function:
		return 0, formatErrorf("function %#04x where %#04x is due", field(1), uint16(r.function))
	case field(4) != r.id:
		return 0, formatErrorf("transaction %d where %d is due", field(4), r.id)
	case field(5) != r.next:
		return 0, formatErrorf("PDU %d where %d is due", field(5), r.next)
	case flags&flagServer == 0:
		return 0, formatErrorf("flags %#04x: not from a server", flags)
	case (flags&flagFirst != 0) != (r.next == 0):
		return 0, formatErrorf("flags %#04x of PDU %d", flags, r.next)
	case n%4 != 0:
		return 0, formatErrorf("a payload of %d bytes", n)
	case n == 0 && flags&flagLast == 0:
		return 0, formatErrorf("an empty PDU that is not the last")
	case len(r.payload)+n > ReplyMax:
		return 0, formatErrorf("a reply of more than %d bytes", ReplyMax)
	}
	r.want, r.last = n, flags&flagLast != 0
	r.next++
	return n, nil
}

// Payload takes the payload of the PDU whose header came before. It returns the reply when it is complete, else nil. An error
// is a *FormatError.
func (r *Reader) Payload(p []byte) (*Reply, error) {
	if len(p) != r.want {
		return nil, formatErrorf("%d bytes of payload instead of %d", len(p), r.want)
	}
	r.payload = append(r.payload, p...)
	if !r.last {
		return nil, nil
	}
	if len(r.payload) < 4 {
		return nil, formatErrorf("a reply without a status")
	}
	reply := &Reply{Status: Status(binary.BigEndian.Uint32(r.payload))}
	var err error
	if reply.Attributes, err = parseAttributes(r.payload[4:]); err != nil {
		return nil, err
	}
	return reply, nil
}
