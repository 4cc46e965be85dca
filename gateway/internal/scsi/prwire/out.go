package prwire

import (
	"encoding/binary"
	"errors"

	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// Limits of a parameter list.
const (
	// OutLength is the length of a parameter list without TransportIDs, in bytes.
	OutLength = 24
	// TransportIDsMax bounds the TransportIDs of one list.
	TransportIDsMax = 64
	// OutMax is the longest parameter list that is looked at, in bytes.
	OutMax = OutLength + 4 + TransportIDsMax*(transportHeader+additionalMax)
)

// Errors of a parameter list, with what they are answered by.
var (
	ErrLength = errors.New("prwire: parameter list length")           // 05/1A/00
	ErrField  = errors.New("prwire: field of the parameter list")     // 05/26/00
	ErrMany   = errors.New("prwire: too many TransportIDs in a list") // 05/55/04
)

// ParseOut takes the parameter list of PERSISTENT RESERVE OUT into r, which has Nexus, Action, Scope and Type. p is exactly
// as long as the CDB says, and borrowed.
func ParseOut(p []byte, r *reservation.Request) error {
	if len(p) < OutLength || len(p) > OutMax {
		return ErrLength
	}
	r.Key = reservation.Key(binary.BigEndian.Uint64(p))
	r.ServiceKey = reservation.Key(binary.BigEndian.Uint64(p[8:]))
	if r.Action == reservation.RegisterAndMove {
		return parseMove(p, r)
	}
	r.SpecIPT, r.AllPorts, r.APTPL = p[20]&0x08 != 0, p[20]&0x04 != 0, p[20]&0x01 != 0
	if r.SpecIPT && r.Action == reservation.Register {
		return parseInitiators(p, r)
	}
	if len(p) != OutLength {
		return ErrLength
	}
	return nil
}

// parseInitiators takes the TransportIDs of SPEC_I_PT.
func parseInitiators(p []byte, r *reservation.Request) error {
	if len(p) < OutLength+4 || uint64(binary.BigEndian.Uint32(p[OutLength:])) != uint64(len(p)-OutLength-4) {
		return ErrLength
	}
	for rest := p[OutLength+4:]; len(rest) > 0; {
		n, length, ok := parseTransportID(rest)
		switch {
		case !ok:
			return ErrField
		case len(r.Initiators) == TransportIDsMax:
			return ErrMany
		}
		n.Port = r.Nexus.Port
		r.Initiators = append(r.Initiators, n)
		rest = rest[length:]
	}
	return nil
}

// parseMove takes what is REGISTER AND MOVE's own.
func parseMove(p []byte, r *reservation.Request) error {
	r.Unregister, r.APTPL = p[17]&0x02 != 0, p[17]&0x01 != 0
	if uint64(binary.BigEndian.Uint32(p[20:])) != uint64(len(p)-OutLength) {
		return ErrLength
	}
	n, length, ok := parseTransportID(p[OutLength:])
	if !ok || length != len(p)-OutLength || n.AnyISID {
		return ErrField
	}
	n.Port = binary.BigEndian.Uint16(p[18:])
	if n.Port == 0 {
		return ErrField
	}
	r.Destination = n
	return nil
}
