package copyset

import (
	"errors"
	"reflect"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

func TestCommandRoundTrip(t *testing.T) {
	want := sample()
	b := want.AppendTo(nil)
	if len(b) != want.Size() {
		t.Errorf("%d bytes, Size says %d", len(b), want.Size())
	}
	var got Command
	if err := got.Decode(b, nil); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestCommandCut(t *testing.T) {
	c := sample()
	b := c.AppendTo(nil)
	for n := range b {
		if err := new(Command).Decode(b[:n], nil); err == nil {
			t.Fatalf("a command cut at %d was taken", n)
		}
	}
	if err := new(Command).Decode(append(b, 0), nil); err == nil {
		t.Error("a command with a byte behind it was taken")
	}
}

func TestCommandVersion(t *testing.T) {
	for at, v := range map[int]byte{0: 2, 1: 77, 2: 1} {
		c := sample()
		b := c.AppendTo(nil)
		b[at] = v
		if err := new(Command).Decode(b, nil); !errors.Is(err, ErrVersion) {
			t.Errorf("byte %d = %d: %v", at, v, err)
		}
	}
}

func TestCommandValidate(t *testing.T) {
	for name, change := range map[string]func(*Command){
		"no volume":            func(c *Command) { c.Chunk.Volume = 0 },
		"no seq":               func(c *Command) { c.Seq = 0 },
		"no epoch":             func(c *Command) { c.Fence.Epoch = 0 },
		"no initiator":         func(c *Command) { c.Initiator = 0 },
		"access of a deleted":  func(c *Command) { c.Access = layout.DeletedAccess },
		"odd offset":           func(c *Command) { c.Offset = 100 },
		"no length":            func(c *Command) { c.Length, c.Payload = 0, nil },
		"beyond the chunk":     func(c *Command) { c.Offset = ChunkSizeMax },
		"less payload":         func(c *Command) { c.Payload = c.Payload[512:] },
		"a checksum too many":  func(c *Command) { c.CRCs = append(c.CRCs, 1) },
		"discard with payload": func(c *Command) { c.Op = OpDiscard },
		"a long compare":       func(c *Command) { c.Op = OpCompareAndWrite },
		"unknown op":           func(c *Command) { c.Op = 1 },
	} {
		c := clone(sample())
		change(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	c := sample()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestWholeBlocks(t *testing.T) {
	for _, c := range []struct {
		off, length uint32
		want        int
	}{
		{0, 4096, 1}, {0, 512, 0}, {512, 4096, 0}, {512, 8192, 1}, {4096, 8192, 2}, {3584, 1024, 0}, {3584, 4608, 1}, {512, 3584, 0},
	} {
		if got := WholeBlocks(c.off, c.length); got != c.want {
			t.Errorf("%d at %d: %d whole blocks, want %d", c.length, c.off, got, c.want)
		}
	}
}

func FuzzCommand(f *testing.F) {
	c := sample()
	f.Add(c.AppendTo(nil))
	swap := Command{Op: OpCompareAndWrite, Chunk: c.Chunk, Length: 512, Initiator: 1, Fence: c.Fence, Seq: 1, Payload: make([]byte, 1024)}
	f.Add(swap.AppendTo(nil))
	raise := Command{Op: OpRaise, Chunk: c.Chunk, Initiator: 1, Fence: c.Fence}
	f.Add(raise.AppendTo(nil))
	digest := Command{Op: OpDigest, Proposer: 1, Proposal: 2}
	f.Add(digest.AppendTo(nil))
	ofVolume := raise.AppendTo(nil)
	ofVolume[1] = byte(OpDigest)
	f.Add(ofVolume)
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Command
		if c.Decode(b, nil) != nil {
			return
		}
		var d Command
		if err := d.Decode(c.AppendTo(nil), nil); err != nil || !reflect.DeepEqual(c, d) {
			t.Fatalf("%+v became %+v: %v", c, d, err)
		}
	})
}
