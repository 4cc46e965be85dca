// Package fieldnum has the field numbers of api/chunk/v1, for the two ends that write and read its messages by hand with
// package protofield: storage/chunkclient and the chunkservers' chunkrpc.
//
//	Requests  version          [ Request  id op … data crcs { Fence } ]…      client ─► server
//	Responses version          [ Response id status … data { Fence } [Run]… ]…  server ─► client
//
// A constant is named after its message and its field. Its test holds them against the generated descriptors: a field
// that is new in chunk.proto wants its number here.
package fieldnum
