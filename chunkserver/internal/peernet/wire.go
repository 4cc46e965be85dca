package peernet

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/quiet"
	"github.com/ashlar-storage/ashlar/storage/chunkclient/protofield"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// The field numbers of api/raft/v1.
const (
	batchVersion  = 1
	batchMessages = 5

	messageCopyset = 1
	messageRaft    = 2
	messageStamp   = 3
	messageQuiet   = 4
)

// The field numbers of raftpb.Message that steady replication uses, and of raftpb.Entry.
const (
	fieldMsgType    = 1
	fieldTo         = 2
	fieldFrom       = 3
	fieldMsgTerm    = 4
	fieldLogTerm    = 5
	fieldMsgIndex   = 6
	fieldEntries    = 7
	fieldCommit     = 8
	fieldReject     = 10
	fieldRejectHint = 11
	fieldVote       = 13

	fieldType  = 1
	fieldTerm  = 2
	fieldIndex = 3
	fieldData  = 4
)

// What a received batch may take when it is parsed, in objects that are larger than their encoding. A peer sends batches
// of batchBytes, or of one message; a MsgApp has at most 1 MiB of entries (multiraft's MessageBytes), or one entry.
const (
	// messagesMax bounds the raft messages of a batch.
	messagesMax = 64 << 10
	// entriesMax bounds the entries of all its messages: no entry is encoded in less than 4 bytes.
	entriesMax = 256 << 10
	// generalMax bounds the bytes, besides entries, of all its messages that are left to the general decoder, which makes
	// objects of a hundred bytes from two.
	generalMax = 256 << 10
)

// lendMin is from which size on an entry's data is sent where it lies, in bytes; smaller ones are cheaper to copy. The blocks
// in it that have checksums of their own are left out of the frame's, and compared by who receives the entry.
const lendMin = 32 << 10

// outgoing is a batch in the making. Data of entries, which are never changed, is lent to its frame.
type outgoing struct {
	frame *stream.Frame // nil for none
	count int           // of messages
}

// reset begins the next batch.
func (o *outgoing) reset() {
	o.count = 0
	if o.frame == nil {
		o.frame = stream.NewFrame(batchBytes)
	}
	o.frame.Reset()
	o.frame.Buf = protofield.AppendVarint(o.frame.Buf, batchVersion, Version)
}

// add appends a message. It returns false when the batch is to be sent first.
func (o *outgoing) add(m *multiraft.Message) bool {
	plain, n := true, 0
	outer := protofield.SizeVarint(uint64(m.Copyset)) + protofield.SizeVarint(m.Stamp) + protofield.SizeVarint(uint64(m.Quiet))
	if m.Raft != nil {
		plain = isPlain(m.Raft)
		n = sizeRaft(m.Raft, plain)
		outer += protofield.SizeBytes(n)
	}
	if o.count > 0 && o.frame.Len()+protofield.SizeBytes(outer) > batchBytes {
		return false
	}
	o.count++
	b := protofield.AppendPrefix(o.frame.Buf, batchMessages, outer)
	b = protofield.AppendVarint(b, messageCopyset, uint64(m.Copyset))
	b = protofield.AppendVarint(b, messageStamp, m.Stamp)
	b = protofield.AppendVarint(b, messageQuiet, uint64(m.Quiet))
	if o.frame.Buf = b; m.Raft == nil {
		return true // a beat
	}
	o.frame.Buf = protofield.AppendPrefix(b, messageRaft, n)
	if plain {
		appendRaft(o.frame, m.Raft)
		return true
	}
	b, err := proto.MarshalOptions{AllowPartial: true}.MarshalAppend(o.frame.Buf, m.Raft)
	if err != nil {
		panic(fmt.Sprintf("peernet: a message of raft has no encoding: %v", err))
	}
	o.frame.Buf = b
	return true
}

// isPlain tells whether a message has nothing but what sizeRaft and raft know, which is so but for votes in a
// transfer and images.
func isPlain(m *raftpb.Message) bool {
	if m.Snapshot != nil || m.Context != nil || len(m.Responses) > 0 || len(m.ProtoReflect().GetUnknown()) > 0 {
		return false
	}
	for _, e := range m.Entries {
		if e == nil || len(e.ProtoReflect().GetUnknown()) > 0 {
			return false
		}
	}
	return true
}

// sizeRaft returns the length of the message's encoding.
func sizeRaft(m *raftpb.Message, plain bool) int {
	if !plain {
		return proto.Size(m)
	}
	n := sizeNumber(m.To) + sizeNumber(m.From) + sizeNumber(m.Term) + sizeNumber(m.LogTerm) + sizeNumber(m.Index) +
		sizeNumber(m.Commit) + sizeNumber(m.Vote) + sizeNumber(m.RejectHint)
	if m.Type != nil {
		n += 1 + protowire.SizeVarint(uint64(*m.Type))
	}
	if m.Reject != nil {
		n += 2
	}
	for _, e := range m.Entries {
		n += protofield.SizeBytes(sizeEntry(e))
	}
	return n
}

func sizeEntry(e *raftpb.Entry) int {
	n := sizeNumber(e.Term) + sizeNumber(e.Index)
	if e.Type != nil {
		n += 1 + protowire.SizeVarint(uint64(*e.Type))
	}
	if e.Data != nil {
		n += protofield.SizeBytes(len(e.Data))
	}
	return n
}

// appendRaft appends a plain message.
func appendRaft(f *stream.Frame, m *raftpb.Message) {
	b := f.Buf
	if m.Type != nil {
		b = appendNumber(b, fieldMsgType, uint64(*m.Type))
	}
	b = appendPointer(b, fieldTo, m.To)
	b = appendPointer(b, fieldFrom, m.From)
	b = appendPointer(b, fieldMsgTerm, m.Term)
	b = appendPointer(b, fieldLogTerm, m.LogTerm)
	b = appendPointer(b, fieldMsgIndex, m.Index)
	b = appendPointer(b, fieldCommit, m.Commit)
	if m.Reject != nil {
		b = appendNumber(b, fieldReject, protowire.EncodeBool(*m.Reject))
	}
	b = appendPointer(b, fieldRejectHint, m.RejectHint)
	b = appendPointer(b, fieldVote, m.Vote)
	for _, e := range m.Entries {
		b = protofield.AppendPrefix(b, fieldEntries, sizeEntry(e))
		if e.Type != nil {
			b = appendNumber(b, fieldType, uint64(*e.Type))
		}
		b = appendPointer(b, fieldTerm, e.Term)
		b = appendPointer(b, fieldIndex, e.Index)
		if e.Data == nil {
			continue
		}
		b = protofield.AppendPrefix(b, fieldData, len(e.Data))
		if len(e.Data) < lendMin {
			b = append(b, e.Data...)
			continue
		}
		f.Buf = b
		lend(f, e.Data)
		b = f.Buf
	}
	f.Buf = b
}

// lend appends an entry's data to f, lent.
func lend(f *stream.Frame, data []byte) {
	blocks, at := copyset.EntryBlocks(data)
	f.Buf = append(f.Buf, data[:at]...)
	f.Lend(blocks)
	f.Except(len(blocks))
	f.Lend(data[at+len(blocks):])
}

func sizeNumber(v *uint64) int {
	if v == nil {
		return 0
	}
	return 1 + protowire.SizeVarint(*v)
}

func appendNumber(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(append(b, byte(num)<<3|byte(protowire.VarintType)), v)
}

func appendPointer(b []byte, num protowire.Number, v *uint64) []byte {
	if v == nil {
		return b
	}
	return appendNumber(b, num, *v)
}

// incoming is a received batch. It is used again for the next one; the raft messages are new each time and share
// nothing with the received bytes.
type incoming struct {
	messages []multiraft.Message
	space    space
}

func (in *incoming) reset() {
	clear(in.messages)
	in.messages = in.messages[:0]
}

// parse parses a batch.
func (in *incoming) parse(b []byte) error {
	in.space = batchSpace()
	version := uint32(0)
	var f protofield.Field
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return err
		}
		switch {
		case f.Is(batchVersion, protowire.VarintType):
			version = uint32(f.Number)
		case f.Is(batchMessages, protowire.BytesType):
			if len(in.messages) == messagesMax {
				return fmt.Errorf("%w: more than %d messages", errTooMuch, messagesMax)
			}
			m, err := in.space.parseMessage(f.Bytes)
			if err != nil {
				return err
			}
			in.messages = append(in.messages, m)
		}
	}
	if version != Version {
		return fmt.Errorf("version %d, this is %d", version, Version)
	}
	return nil
}

// space is what the messages of a batch may still take.
type space struct{ entries, general int }

// batchSpace returns the space of a batch.
func batchSpace() space { return space{entries: entriesMax, general: generalMax} }

// errTooMuch means that a batch would take more than batchSpace or messagesMax allow.
var errTooMuch = errors.New("too much in one batch")

// parseMessage parses one message of a batch from bytes that are borrowed.
func (s *space) parseMessage(b []byte) (multiraft.Message, error) {
	var m multiraft.Message
	var f protofield.Field
	var raw []byte
	for len(b) > 0 {
		var err error
		if b, err = f.Next(b); err != nil {
			return m, err
		}
		switch {
		case f.Is(messageCopyset, protowire.VarintType):
			m.Copyset = layout.CopysetID(f.Number)
		case f.Is(messageStamp, protowire.VarintType):
			m.Stamp = f.Number
		case f.Is(messageQuiet, protowire.VarintType):
			m.Quiet = quiet.Incarnation(f.Number)
		case f.Is(messageRaft, protowire.BytesType):
			raw = f.Bytes
		}
	}
	var err error
	m.Raft, err = s.decode(raw)
	return m, err
}

// numbers is what the pointers of a message point to.
type numbers struct {
	typ                                                      raftpb.MessageType
	to, from, term, logTerm, index, commit, rejectHint, vote uint64
	reject                                                   bool
}

// record is an entry and what it points to.
type record struct {
	entry       raftpb.Entry
	term, index uint64
	typ         raftpb.EntryType
}

// decode parses a raft message from bytes that are borrowed. The general decoder makes an object of each number; here
// the numbers of a message are one object together with it, its entries a second one and their data a third, which
// belongs to the message alone. The result is the same: what is not part of steady replication is left to the general
// decoder.
func (s *space) decode(b []byte) (*raftpb.Message, error) {
	entries, general, err := survey(b)
	if err != nil {
		return nil, err
	}
	if s.entries -= entries; s.entries < 0 {
		return nil, fmt.Errorf("%w: more than %d entries", errTooMuch, entriesMax)
	}
	if general > 0 {
		if s.general -= general; s.general < 0 {
			return nil, fmt.Errorf("%w: more than %d bytes that are no entries", errTooMuch, generalMax)
		}
		m := &raftpb.Message{}
		return m, proto.Unmarshal(b, m)
	}
	d := &struct {
		m raftpb.Message
		n numbers
	}{}
	m := &d.m
	var list []record
	if entries > 0 {
		b = bytes.Clone(b)
		list = make([]record, entries)
		m.Entries = make([]*raftpb.Entry, 0, entries)
	}
	var f protofield.Field
	for len(b) > 0 {
		if b, err = f.Next(b); err != nil {
			return nil, err
		}
		if f.Num != fieldEntries {
			d.n.set(m, f.Num, f.Number)
			continue
		}
		r := &list[len(m.Entries)]
		if err := r.decode(f.Bytes); err != nil {
			return nil, err
		}
		if len(r.entry.Data) >= lendMin {
			if err := copyset.VerifyEntry(r.entry.Data); err != nil {
				return nil, err
			}
		}
		m.Entries = append(m.Entries, &r.entry)
	}
	return m, nil
}

// survey counts the entries of a message, and the bytes of everything else if there is something else than numbers that
// set knows: such a message is left to the general decoder.
func survey(b []byte) (entries, general int, err error) {
	var f protofield.Field
	simple, rest := true, 0
	for len(b) > 0 {
		before := len(b)
		if b, err = f.Next(b); err != nil {
			return 0, 0, err
		}
		if f.Is(fieldEntries, protowire.BytesType) {
			entries++
			continue
		}
		rest += before - len(b)
		simple = simple && f.Type == protowire.VarintType && isNumber(f.Num)
	}
	if simple {
		return entries, 0, nil
	}
	return entries, rest, nil
}

// isNumber tells whether set knows the field.
func isNumber(num protowire.Number) bool {
	return num >= fieldMsgType && num <= fieldCommit && num != fieldEntries || num == fieldReject || num == fieldRejectHint || num == fieldVote
}

// set sets a number of m.
func (n *numbers) set(m *raftpb.Message, num protowire.Number, v uint64) {
	switch num {
	case fieldMsgType:
		n.typ, m.Type = raftpb.MessageType(int32(v)), &n.typ
	case fieldTo:
		n.to, m.To = v, &n.to
	case fieldFrom:
		n.from, m.From = v, &n.from
	case fieldMsgTerm:
		n.term, m.Term = v, &n.term
	case fieldLogTerm:
		n.logTerm, m.LogTerm = v, &n.logTerm
	case fieldMsgIndex:
		n.index, m.Index = v, &n.index
	case fieldCommit:
		n.commit, m.Commit = v, &n.commit
	case fieldReject:
		n.reject, m.Reject = v != 0, &n.reject
	case fieldRejectHint:
		n.rejectHint, m.RejectHint = v, &n.rejectHint
	case fieldVote:
		n.vote, m.Vote = v, &n.vote
	}
}

// decode parses an entry, whose data lies in b from now on.
func (r *record) decode(b []byte) error {
	e := &r.entry
	var f protofield.Field
	for p := b; len(p) > 0; {
		var err error
		if p, err = f.Next(p); err != nil {
			return err
		}
		switch {
		case f.Is(fieldData, protowire.BytesType):
			e.Data = f.Bytes
		case f.Is(fieldType, protowire.VarintType):
			r.typ = raftpb.EntryType(int32(f.Number))
			e.Type = &r.typ
		case f.Is(fieldTerm, protowire.VarintType):
			r.term = f.Number
			e.Term = &r.term
		case f.Is(fieldIndex, protowire.VarintType):
			r.index = f.Number
			e.Index = &r.index
		default:
			e.Reset()
			return proto.Unmarshal(b, e) // what a newer release may have added
		}
	}
	return nil
}
