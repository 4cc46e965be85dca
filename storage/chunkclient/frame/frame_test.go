package frame

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// blob is a body of bytes.
type blob struct {
	b     []byte
	fails error
}

func (p *blob) Size() int                  { return len(p.b) }
func (p *blob) AppendTo(dst []byte) []byte { return append(dst, p.b...) }
func (p *blob) Parse(b []byte) error       { p.b = bytes.Clone(b); return p.fails }

// lent is a body in two buffers.
type lent struct{ blob }

func (p *lent) Lend() mem.BufferSlice {
	head := Pool().Get(len(p.b) / 2)
	copy(*head, p.b)
	return mem.BufferSlice{mem.NewBuffer(head, Pool()), mem.SliceBuffer(p.b[len(p.b)/2:])}
}

// message returns the encoding of a generated message with n bytes of content.
func message(t testing.TB, n int) ([]byte, *wrapperspb.BytesValue) {
	t.Helper()
	m := wrapperspb.Bytes(bytes.Repeat([]byte("ashlar!"), n/7+1)[:n])
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b, m
}

// TestCodecs: a Message passes through grpc's codec and through Codec, in either direction, as a generated one does.
func TestCodecs(t *testing.T) {
	codecs := map[string]encoding.CodecV2{"grpc": encoding.GetCodecV2(grpcproto.Name), "own": NewCodec()}
	for name, c := range codecs {
		if c.Name() != grpcproto.Name {
			t.Errorf("%s: named %s", name, c.Name())
		}
		for _, n := range []int{0, 1, 500, 1 << 10, 5000, 16 << 10, 40000, 3 << 20} {
			want, generated := message(t, n)
			bodies := map[string]any{"message": &Message{&blob{b: want}}, "lender": &Message{&lent{blob{b: want}}}, "generated": generated}
			for what, m := range bodies {
				out, err := c.Marshal(m)
				if err != nil || !bytes.Equal(out.Materialize(), want) {
					t.Fatalf("%s, %s of %d bytes: %v", name, what, n, err)
				}
				got := &wrapperspb.BytesValue{}
				if err := c.Unmarshal(out, got); err != nil || !proto.Equal(got, generated) {
					t.Fatalf("%s, %s of %d bytes: %v", name, what, n, err)
				}
				out.Free()
			}
			var cut mem.BufferSlice // as frames of HTTP/2 cut it
			for rest := want; len(rest) > 0; {
				k := min(len(rest), 16<<10)
				cut, rest = append(cut, mem.Copy(rest[:k], Pool())), rest[k:]
			}
			p := &blob{b: []byte("old")}
			if err := c.Unmarshal(cut, &Message{p}); err != nil || !bytes.Equal(p.b, want) {
				t.Fatalf("%s: %d bytes: %v", name, n, err)
			}
			cut.Free()
		}
		wrong := errors.New("wrong")
		if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer("x")}, &Message{&blob{fails: wrong}}); !errors.Is(err, wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReflection: what protobuf's general functions do with a Message ends well.
func TestReflection(t *testing.T) {
	m := &Message{&blob{b: []byte{1, 2}}}
	if proto.Size(m) != 2 || proto.Clone(m) == nil || !proto.Equal(m, m) {
		t.Error("not a message")
	}
	proto.Reset(m)
	r := m.ProtoReflect()
	if r.Interface() != proto.Message(m) || !r.IsValid() || r.Type().Descriptor() != r.Descriptor() || r.GetUnknown() != nil || r.New() == nil {
		t.Error("not the message")
	}
}

func TestPool(t *testing.T) {
	var p tiers
	for _, n := range []int{0, 1, 4096, 4097, 32 << 10, 1 << 20, 1<<20 + 1} {
		b := p.Get(n)
		if len(*b) != n || n <= 1<<tierMax && cap(*b)&(cap(*b)-1) != 0 {
			t.Fatalf("asked for %d, got %d of %d", n, len(*b), cap(*b))
		}
		*b = (*b)[:0]
		p.Put(b)
		if again := p.Get(n); len(*again) != n {
			t.Fatalf("asked again for %d, got %d", n, len(*again))
		}
	}
	for _, n := range []int{10, 5000, 8191, 2 << 20} {
		odd := make([]byte, n)
		p.Put(&odd)
	}
	for range 10 { // whatever came in has room for what is asked
		for _, n := range []int{4096, 8192, 1 << 20} {
			if b := p.Get(n); len(*b) != n {
				t.Fatal(len(*b))
			}
		}
	}
}

// TestLend: what waits in grpc takes memory by its length, not by the size of the buffer that it was written in.
func TestLend(t *testing.T) {
	for _, n := range []int{1, 100, 1 << 10, 1<<10 + 1, copyMax, copyMax + 1, 32 << 10} {
		want := bytes.Repeat([]byte{7}, n)
		buf := Pool().Get(32 << 10)
		*buf = append((*buf)[:0], want...)
		b := Lend(buf)
		got := b.ReadOnlyData()
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes became %d", n, len(got))
		}
		switch held := cap(got); {
		case n <= 1<<10 && held > n+n/4+16, n <= copyMax && held > copyMax, held > 32<<10:
			t.Errorf("%d bytes hold %d", n, held)
		}
		b.Free()
	}
}

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
