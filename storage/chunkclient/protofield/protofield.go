package protofield

import (
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field is one field of an encoded message.
type Field struct {
	Num  protowire.Number
	Type protowire.Type
	// Number is the value of a varint or of a fixed32 or fixed64.
	Number uint64
	// Bytes is the value of what has a length; it lies in what was read.
	Bytes []byte
}

// ErrField means that a field's number or type is not valid.
var ErrField = errors.New("protofield: invalid field")

// Next reads the first field of b into f and returns what follows it. A truncated field is io.ErrUnexpectedEOF. Of a
// group only number and type are told.
func (f *Field) Next(b []byte) ([]byte, error) {
	tag, b, err := varint(b)
	if err != nil {
		return nil, err
	}
	if tag>>3 < uint64(protowire.MinValidNumber) || tag>>3 > uint64(protowire.MaxValidNumber) {
		return nil, ErrField
	}
	*f = Field{Num: protowire.Number(tag >> 3), Type: protowire.Type(tag & 7)}
	switch f.Type {
	case protowire.VarintType:
		f.Number, b, err = varint(b)
		return b, err
	case protowire.BytesType:
		n, b, err := varint(b)
		if err != nil || n > uint64(len(b)) {
			return nil, errors.Join(err, io.ErrUnexpectedEOF)
		}
		f.Bytes = b[:n:n]
		return b[n:], nil
	case protowire.Fixed32Type:
		if len(b) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		f.Number = uint64(binary.LittleEndian.Uint32(b))
		return b[4:], nil
	case protowire.Fixed64Type:
		if len(b) < 8 {
			return nil, io.ErrUnexpectedEOF
		}
		f.Number = binary.LittleEndian.Uint64(b)
		return b[8:], nil
	}
	n := protowire.ConsumeFieldValue(f.Num, f.Type, b) // a group, or not valid
	if n < 0 {
		return nil, protowire.ParseError(n)
	}
	return b[n:], nil
}

// Is tells number and type.
func (f *Field) Is(num protowire.Number, t protowire.Type) bool { return f.Num == num && f.Type == t }

func varint(b []byte) (uint64, []byte, error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil
	}
	v, n := protowire.ConsumeVarint(b)
	if n < 0 {
		return 0, nil, protowire.ParseError(n)
	}
	return v, b[n:], nil
}

// SizeVarint returns the size of field num, at most 15, with value v, which is left out when it is 0.
func SizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// AppendVarint appends field num, at most 15, with value v, which is left out when it is 0.
func AppendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, byte(num)<<3|byte(protowire.VarintType)), v)
}

// SizeBytes returns the size of a field with n bytes.
func SizeBytes(n int) int { return 1 + protowire.SizeVarint(uint64(n)) + n }

// AppendPrefix appends the tag of field num, at most 15, and the length of the n bytes that have to follow.
func AppendPrefix(b []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(append(b, byte(num)<<3|byte(protowire.BytesType)), uint64(n))
}

// AppendFixed32s appends field num, at most 15, with the values packed; an empty list is left out.
func AppendFixed32s(b []byte, num protowire.Number, values []uint32) []byte {
	if len(values) == 0 {
		return b
	}
	b = AppendPrefix(b, num, 4*len(values))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
