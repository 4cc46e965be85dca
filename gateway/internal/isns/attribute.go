package isns

import (
	"encoding/binary"
	"fmt"
)

// Tag names an attribute, RFC 4171 section 6.1.
type Tag uint32

// The attributes that are used here.
const (
	TagDelimiter          Tag = 0
	TagEntityIdentifier   Tag = 1
	TagEntityProtocol     Tag = 2
	TagRegistrationPeriod Tag = 6 // seconds
	TagPortalAddress      Tag = 16
	TagPortalPort         Tag = 17
	TagISCSIName          Tag = 32
	TagISCSINodeType      Tag = 33
	TagISCSIAlias         Tag = 34
	TagGroupAddress       Tag = 49
	TagGroupPort          Tag = 50
	TagGroupTag           Tag = 51
)

const (
	protocolISCSI  = 2 // of TagEntityProtocol
	nodeTypeTarget = 1 // of TagISCSINodeType
)

// Attribute is one attribute of a reply.
type Attribute struct {
	Tag   Tag
	Value []byte // with its padding; borrowed from what was parsed
}

// Uint32 returns the value of a 4-byte attribute.
func (a Attribute) Uint32() (uint32, bool) {
	if len(a.Value) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(a.Value), true
}

// AttributesMax bounds the attributes of one reply.
const AttributesMax = 1 << 14

// parseAttributes parses attributes up to the end of b, which is borrowed.
func parseAttributes(b []byte) ([]Attribute, error) {
	var out []Attribute
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, formatErrorf("%d bytes where an attribute should begin", len(b))
		}
		tag, n := Tag(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
		b = b[8:]
		if n%4 != 0 || uint64(n) > uint64(len(b)) {
			return nil, formatErrorf("attribute %d says that it has %d bytes, %d are left", tag, n, len(b))
		}
		if len(out) == AttributesMax {
			return nil, formatErrorf("more than %d attributes", AttributesMax)
		}
		out = append(out, Attribute{tag, b[:n:n]})
		b = b[n:]
	}
	return out, nil
}

// FormatError says what is wrong with what a server sent.
type FormatError struct{ Detail string }

func (e *FormatError) Error() string { return "iSNS: the server's message is malformed: " + e.Detail }

func formatErrorf(format string, args ...any) *FormatError {
	return &FormatError{fmt.Sprintf(format, args...)}
}

func appendUint32(b []byte, tag Tag, v uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(tag))
	b = binary.BigEndian.AppendUint32(b, 4)
	return binary.BigEndian.AppendUint32(b, v)
}

// appendText appends a text with its zero byte and padding.
func appendText(b []byte, tag Tag, s string) []byte {
	n := textLen(s)
	b = binary.BigEndian.AppendUint32(b, uint32(tag))
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, s...)
	return append(b, make([]byte, n-len(s))...)
}

// textLen is the length of a text's value.
func textLen(s string) int { return (len(s) + 1 + 3) &^ 3 }

func appendBytes(b []byte, tag Tag, v []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(tag))
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}
