package protofield

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func encoded() []byte {
	b := AppendVarint(nil, 1, 300)
	b = AppendVarint(b, 2, 0)
	b = append(AppendPrefix(b, 3, 3), "abc"...)
	b = AppendFixed32s(b, 4, []uint32{1, 0xffffffff})
	b = AppendFixed32s(b, 5, nil)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 6, protowire.Fixed32Type), 7)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 7, protowire.Fixed64Type), 1<<40)
	b = protowire.AppendTag(b, 200, protowire.StartGroupType)
	b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), 5)
	b = protowire.AppendTag(b, 200, protowire.EndGroupType)
	return AppendVarint(b, 15, 1<<63)
}

// same compares Next with protowire.
func same(t *testing.T, b []byte) {
	t.Helper()
	for len(b) > 0 {
		var f Field
		rest, err := f.Next(b)
		num, typ, n := protowire.ConsumeField(b)
		if n >= 0 && num > protowire.MaxValidNumber {
			n = -1 // generated code refuses it too
		}
		if (err == nil) != (n >= 0) {
			t.Fatalf("%x: error %v, protowire says %d", b, err, n)
		}
		if err != nil {
			return
		}
		if f.Num != num || f.Type != typ || len(b)-len(rest) != n {
			t.Fatalf("%x: got %+v and %d bytes, protowire %d %d %d", b, f, len(b)-len(rest), num, typ, n)
		}
		_, _, tag := protowire.ConsumeTag(b)
		value := b[tag:n]
		switch typ {
		case protowire.VarintType:
			if v, _ := protowire.ConsumeVarint(value); v != f.Number {
				t.Fatalf("%x: %d", b, f.Number)
			}
		case protowire.Fixed32Type:
			if v, _ := protowire.ConsumeFixed32(value); uint64(v) != f.Number {
				t.Fatalf("%x: %d", b, f.Number)
			}
		case protowire.Fixed64Type:
			if v, _ := protowire.ConsumeFixed64(value); v != f.Number {
				t.Fatalf("%x: %d", b, f.Number)
			}
		case protowire.BytesType:
			if v, _ := protowire.ConsumeBytes(value); !bytes.Equal(v, f.Bytes) || cap(f.Bytes) != len(f.Bytes) {
				t.Fatalf("%x: %x", b, f.Bytes)
			}
		}
		b = rest
	}
}

func TestNext(t *testing.T) {
	b := encoded()
	for n := range len(b) + 1 {
		same(t, b[:n])
	}
	for _, b := range [][]byte{{0}, {7}, {6, 0}, {0x0c}, {0x0b, 0x0b}, bytes.Repeat([]byte{0xff}, 11), {0xfa, 0xff, 0xff, 0xff, 0x7f, 0}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}} {
		same(t, b)
	}
}

func TestSizes(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 128, 1 << 35, 1<<64 - 1} {
		if n := len(AppendVarint(nil, 15, v)); n != SizeVarint(v) {
			t.Errorf("%d: %d bytes, said %d", v, n, SizeVarint(v))
		}
	}
	for _, k := range []int{0, 1, 127, 128, 70000} {
		if n := len(AppendPrefix(nil, 1, k)) + k; n != SizeBytes(k) {
			t.Errorf("%d: %d bytes, said %d", k, n, SizeBytes(k))
		}
	}
}

func FuzzNext(f *testing.F) {
	f.Add(encoded())
	f.Fuzz(func(t *testing.T, b []byte) { same(t, b) })
}
