package peernet

import (
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// decode parses a raft message. The entries of a MsgApp are nearly all bytes that arrive, and the general decoder would
// copy them once more: theirs lie in b, which belongs to the message from now on. Everything but entries goes through
// the general decoder, so the result is the same.
func decode(b []byte) (*raftpb.Message, error) {
	m := &raftpb.Message{}
	var entries []*raftpb.Entry
	rest := make([]byte, 0, 64)
	for p := b; len(p) > 0; {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		k := protowire.ConsumeFieldValue(num, typ, p[n:])
		if k < 0 {
			return nil, protowire.ParseError(k)
		}
		if num == fieldEntries && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(p[n:])
			e, err := decodeEntry(v)
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		} else {
			rest = append(rest, p[:n+k]...)
		}
		p = p[n+k:]
	}
	if err := proto.Unmarshal(rest, m); err != nil {
		return nil, err
	}
	m.Entries = entries
	return m, nil
}

// The field numbers of raftpb.Message and raftpb.Entry.
const (
	fieldEntries = 7
	fieldType    = 1
	fieldTerm    = 2
	fieldIndex   = 3
	fieldData    = 4
)

func decodeEntry(b []byte) (*raftpb.Entry, error) {
	e := &raftpb.Entry{}
	for p := b; len(p) > 0; {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		p = p[n:]
		switch {
		case num == fieldData && typ == protowire.BytesType:
			v, k := protowire.ConsumeBytes(p)
			if k < 0 {
				return nil, protowire.ParseError(k)
			}
			e.Data, p = v[:len(v):len(v)], p[k:]
		case num >= fieldType && num <= fieldIndex && typ == protowire.VarintType:
			v, k := protowire.ConsumeVarint(p)
			if k < 0 {
				return nil, protowire.ParseError(k)
			}
			switch num {
			case fieldType:
				e.Type = raftpb.EntryType(v).Enum()
			case fieldTerm:
				e.Term = &v
			case fieldIndex:
				e.Index = &v
			}
			p = p[k:]
		default:
			return e, proto.Unmarshal(b, e) // what a newer release may have added
		}
	}
	return e, nil
}
