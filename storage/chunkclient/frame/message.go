package frame

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Body is the content of a message, to be sent or received.
type Body interface {
	// Size returns the length of the encoding, in bytes: exactly what AppendTo appends.
	Size() int
	// AppendTo appends the encoding to dst.
	AppendTo(dst []byte) []byte
	// Parse takes an encoding, which is borrowed until it returns. Its error ends the stream with codes.Internal, at a
	// server even when the handler returns another status.
	Parse(b []byte) error
}

// Message is a message for grpc's SendMsg and RecvMsg, which call the methods of Body.
type Message struct{ Body Body }

// Reset does nothing: Parse replaces what was there.
func (m *Message) Reset() {}

// ProtoReflect makes m a message for the protobuf package, which takes it by the fast path of generated messages.
func (m *Message) ProtoReflect() protoreflect.Message { return (*reflection)(m) }

// reflection is a Message as protobuf sees it. What the fast path does not use is that of an empty message.
type reflection Message

var (
	empty = (&emptypb.Empty{}).ProtoReflect()
	fast  = &protoiface.Methods{
		Size: func(in protoiface.SizeInput) protoiface.SizeOutput {
			return protoiface.SizeOutput{Size: body(in.Message).Size()}
		},
		Marshal:          marshal,
		Unmarshal:        unmarshal,
		CheckInitialized: checkInitialized,
	}
)

func body(m protoreflect.Message) Body { return m.(*reflection).Body }

func marshal(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
	return protoiface.MarshalOutput{Buf: body(in.Message).AppendTo(in.Buf)}, nil
}

func unmarshal(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
	return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, body(in.Message).Parse(in.Buf)
}

func checkInitialized(protoiface.CheckInitializedInput) (protoiface.CheckInitializedOutput, error) {
	return protoiface.CheckInitializedOutput{}, nil
}

func (r *reflection) ProtoMethods() *protoiface.Methods                    { return fast }
func (r *reflection) Interface() protoreflect.ProtoMessage                 { return (*Message)(r) }
func (r *reflection) IsValid() bool                                        { return r != nil }
func (r *reflection) Descriptor() protoreflect.MessageDescriptor           { return empty.Descriptor() }
func (r *reflection) Type() protoreflect.MessageType                       { return empty.Type() }
func (r *reflection) New() protoreflect.Message                            { return empty.New() }
func (r *reflection) Has(f protoreflect.FieldDescriptor) bool              { return empty.Has(f) }
func (r *reflection) Clear(f protoreflect.FieldDescriptor)                 { empty.Clear(f) }
func (r *reflection) GetUnknown() protoreflect.RawFields                   { return nil }
func (r *reflection) SetUnknown(protoreflect.RawFields)                    {}
func (r *reflection) Set(protoreflect.FieldDescriptor, protoreflect.Value) {}
func (r *reflection) Get(f protoreflect.FieldDescriptor) protoreflect.Value {
	return empty.Get(f)
}

func (r *reflection) Mutable(f protoreflect.FieldDescriptor) protoreflect.Value {
	return empty.Mutable(f)
}

func (r *reflection) NewField(f protoreflect.FieldDescriptor) protoreflect.Value {
	return empty.NewField(f)
}

func (r *reflection) WhichOneof(d protoreflect.OneofDescriptor) protoreflect.FieldDescriptor {
	return empty.WhichOneof(d)
}
func (r *reflection) Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool) {}
