// Package protofield reads and writes protobuf field by field, for messages that are encoded by hand because the general
// decoder makes several objects of each command and copies its data twice.
//
//	message = field*    field = tag varint (number, type), then varint | 4 bytes | 8 bytes | length varint and bytes
//
// What is written is what the generated code of api/ would have written; either end may be generated code. Next reads an
// encoding field by field; AppendX write one.
package protofield
