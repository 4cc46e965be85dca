package pdu

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzParsePDU reads frames as a target and an initiator would. What parses must encode to something that parses to
// the same, and all errors must be ones that have an answer in the protocol.
func FuzzParsePDU(f *testing.F) {
	for _, v := range vectors {
		for flags := range byte(4) {
			f.Add(flags, frame(v.p, dataOf(v.p), Limits{HeaderDigest: flags&1 != 0, DataDigest: flags&2 != 0}))
		}
	}
	f.Fuzz(func(t *testing.T, flags byte, wire []byte) {
		lim := Limits{MaxData: 256, HeaderDigest: flags&1 != 0, DataDigest: flags&2 != 0}
		p, n, err := unframe(wire, lim)
		if err != nil {
			var fe *FormatError
			var de *DigestError
			if !errors.Is(err, errShort) && !errors.As(err, &fe) && !errors.As(err, &de) {
				t.Fatalf("error without answer: %v", err)
			}
			return
		}
		if n < BHSLen || n > len(wire) || len(dataOf(p)) > lim.MaxData {
			t.Fatalf("read %d of %d bytes, %d of data", n, len(wire), len(dataOf(p)))
		}
		again := frame(p, dataOf(p), lim)
		q, _, err := unframe(again, lim)
		if err != nil || !same(p, q) {
			t.Fatalf("%#v\nencoded to %x\nand parsed to %#v, %v", p, again, q, err)
		}
		if third := frame(q, dataOf(q), lim); !bytes.Equal(again, third) {
			t.Fatalf("%x\nthen %x", again, third)
		}
	})
}
