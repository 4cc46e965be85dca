package frame

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Lender is a Body that has its encoding in buffers already.
type Lender interface {
	Body
	// Lend hands the encoding over: grpc frees the buffers when it has written them. It is called once.
	Lend() mem.BufferSlice
}

// Codec is grpc's codec for protobuf, by the same name, except that a Message is encoded and decoded in buffers of Pool,
// and a Lender's bytes are sent where they lie.
type Codec struct{ proto encoding.CodecV2 }

// NewCodec returns a Codec, for grpc.ForceCodecV2 and grpc.ForceServerCodecV2.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(proto.Name)} }

// Name returns the name of the encoding on the wire.
func (c Codec) Name() string { return proto.Name }

// Marshal encodes a message.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*Message)
	if !ok {
		return c.proto.Marshal(v)
	}
	if l, ok := m.Body.(Lender); ok {
		return l.Lend(), nil
	}
	buf := Pool().Get(m.Body.Size())
	*buf = m.Body.AppendTo((*buf)[:0])
	return mem.BufferSlice{mem.NewBuffer(buf, Pool())}, nil
}

// Unmarshal decodes a message.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*Message)
	if !ok {
		return c.proto.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(Pool())
	defer buf.Free()
	return m.Body.Parse(buf.ReadOnlyData())
}

// copyMax is up to which length Lend copies, in bytes: that of the smallest buffer of Pool.
const copyMax = 1 << tierMin

// Lend hands what lies in a buffer of Pool to grpc, for a Lender. The buffer goes back to Pool, at once or when grpc has
// written it. Little content is copied: grpc counts the bytes that wait for the connection, not the buffers that they lie
// in, so thousands of messages of a hundred bytes would each hold a buffer that was taken for a full one.
func Lend(buf *[]byte) mem.Buffer {
	if len(*buf) > copyMax {
		return mem.NewBuffer(buf, Pool())
	}
	b := mem.Copy(*buf, Pool())
	Pool().Put(buf)
	return b
}

// The sizes of buffers that are kept, as powers of two: 4 KiB to 4 MiB. A message with 1 MiB of data is longer than that.
const (
	tierMin = 12
	tierMax = 22
)

// tiers is a pool of buffers for each power of two. grpc's own has four sizes and clears a buffer each time.
type tiers [tierMax - tierMin + 1]sync.Pool

var pool tiers

// Pool returns the pool of buffers. What lies in a buffer that it returns is left from its last use.
func Pool() mem.BufferPool { return &pool }

// Get returns a buffer of n bytes.
func (t *tiers) Get(n int) *[]byte {
	tier := max(bits.Len(uint(max(n, 1)-1)), tierMin)
	if tier > tierMax {
		b := make([]byte, n)
		return &b
	}
	if b, ok := t[tier-tierMin].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<tier)
	return &b
}

// Put takes a buffer back. One that is smaller or larger than those that are kept is left to the collector.
func (t *tiers) Put(b *[]byte) {
	tier := bits.Len(uint(cap(*b))) - 1 // the largest that it has room for
	if tier >= tierMin && tier <= tierMax {
		t[tier-tierMin].Put(b)
	}
}
