package prwire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/ashlar-storage/ashlar/storage/reservation"
)

const (
	// protocolISCSI is the PROTOCOL IDENTIFIER of iSCSI (SPC-4 7.6.1).
	protocolISCSI = 5
	// formatPort is FORMAT CODE 01b in its place.
	formatPort = 0x40
	// transportHeader is the length of what precedes the name, additionalMin the least ADDITIONAL LENGTH.
	transportHeader, additionalMin = 4, 20
	// nameMax is the longest iSCSI name, in bytes (RFC 7143 section 4.2.7.2).
	nameMax = 223
	// isidMark stands between the name and the ISID of a port.
	isidMark = ",i,0x"
	// additionalMax is the longest ADDITIONAL LENGTH: a port's name with its zero, padded.
	additionalMax = (nameMax + len(isidMark) + 12 + 1 + 3) &^ 3
)

// AppendTransportID appends the TransportID of n's initiator port, or of its initiator device if n is for any port of it.
func AppendTransportID(p []byte, n reservation.Nexus) []byte {
	start := len(p)
	format := byte(formatPort)
	if n.AnyISID {
		format = 0
	}
	p = append(p, format|protocolISCSI, 0, 0, 0)
	p = append(p, n.Initiator...)
	if !n.AnyISID {
		p = append(p, isidMark...)
		p = hex.AppendEncode(p, n.ISID[:])
	}
	p = append(p, 0)
	for len(p)-start < transportHeader+additionalMin || (len(p)-start)%4 != 0 {
		p = append(p, 0)
	}
	binary.BigEndian.PutUint16(p[start+2:], uint16(len(p)-start-transportHeader))
	return p
}

// parseTransportID takes the first TransportID of p, and returns how long it is; ok is false when there is no proper one of
// iSCSI. The target port of n is not set.
func parseTransportID(p []byte) (n reservation.Nexus, length int, ok bool) {
	if len(p) < transportHeader+additionalMin {
		return n, 0, false
	}
	additional := int(binary.BigEndian.Uint16(p[2:]))
	length = transportHeader + additional
	if additional < additionalMin || additional > additionalMax || additional%4 != 0 || length > len(p) {
		return n, 0, false
	}
	text, pad, found := bytes.Cut(p[transportHeader:length], []byte{0})
	if !found || len(bytes.Trim(pad, "\x00")) != 0 || p[1] != 0 {
		return n, 0, false
	}
	name := string(text)
	switch p[0] {
	case protocolISCSI:
		n.AnyISID = true
	case formatPort | protocolISCSI:
		var isid string
		if name, isid, found = strings.Cut(name, isidMark); !found || len(isid) != 2*len(n.ISID) {
			return n, 0, false
		}
		if _, err := hex.Decode(n.ISID[:], []byte(isid)); err != nil {
			return n, 0, false
		}
	default:
		return n, 0, false
	}
	n.Initiator = strings.ToLower(name)
	return n, length, properName(n.Initiator)
}

// properName tells whether name can be an iSCSI name.
func properName(name string) bool {
	if len(name) > nameMax {
		return false
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] == ',' || name[i] == 0x7F {
			return false
		}
	}
	return strings.HasPrefix(name, "iqn.") || strings.HasPrefix(name, "eui.") || strings.HasPrefix(name, "naa.")
}
