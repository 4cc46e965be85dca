// Package frame lets grpc carry messages whose protobuf encoding is written and read by hand, because the general
// decoder makes several objects of each command and copies its data twice.
//
//	sender                                                   receiver
//	Body.AppendTo ─► bytes ─► grpc ══ api/*/v1 messages ══► grpc ─► bytes ─► Body.Parse
//
// On the wire are the messages of api/, as the generated code would have written them; either end may be generated code.
// A Message is taken by grpc's own codec, because it has the methods by which generated messages are encoded too. Codec
// is for clients: it sends the bytes of a Lender without another copy.
//
// Next reads an encoding field by field; AppendX write one.
package frame
