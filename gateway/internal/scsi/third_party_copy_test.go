package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/odx"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/xcopy"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// fenced is a Backend that counts its fences.
type fenced struct {
	*memory
	fences atomic.Int64
}

func (f *fenced) Fence() { f.fences.Add(1) }

// copyRig is a rig with a second logical unit at LUN 1, and a third one that only another initiator sees.
type copyRig struct {
	*rig
	other, hidden *LogicalUnit
	otherMem      *fenced
	otherLUNs     *LUNMap // of the other initiator: the second and the third
}

const copyBlocks = 16384 // 8 MiB with 512-byte blocks

func newCopyRig(t testing.TB, block int, otherBlock int) *copyRig {
	t.Helper()
	r := &copyRig{rig: newRig(t, testConfig(copyBlocks*512/int64(block), block))}
	unit := func(n byte, block int) *LogicalUnit {
		config := testConfig(copyBlocks*512/int64(block), block)
		config.Identity.NAA[15] = n
		u, err := NewLogicalUnit(config)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	r.other, r.hidden = unit(1, otherBlock), unit(2, block)
	r.otherMem = &fenced{memory: newMemory(copyBlocks * 512)}
	r.remap(true)
	var err error
	r.otherLUNs, err = NewLUNMap(
		Mapping{LUN: 0, Unit: r.hidden, Backend: newMemory(copyBlocks * 512)},
		Mapping{LUN: 1, Unit: r.other, Backend: r.otherMem},
	)
	if err != nil {
		t.Fatal(err)
	}
	r.nexus = r.login(NoSense)
	return r
}

// remap maps the logical units, the second one if there is to be one.
func (r *copyRig) remap(both bool, change ...func(*Mapping)) {
	maps := []Mapping{{LUN: 0, Unit: r.unit, Backend: r.mem}}
	if both {
		m := Mapping{LUN: 1, Unit: r.other, Backend: r.otherMem}
		for _, f := range change {
			f(&m)
		}
		maps = append(maps, m)
	}
	if err := r.luns.Update(maps...); err != nil {
		r.t.Fatal(err)
	}
}

func cscd(u *LogicalUnit) []byte {
	p := make([]byte, 32)
	id := u.Identity().NAA
	p[0], p[4], p[5], p[7] = 0xE4, 1, 3, byte(copy(p[8:], id[:]))
	p[30], p[31] = byte(u.BlockLength()>>8), byte(u.BlockLength())
	return p
}

func blocksSegment(source, destination uint16, blocks uint16, from, to uint64) []byte {
	p := []byte{0x02, 0, 0, 0x18}
	p = binary.BigEndian.AppendUint16(p, source)
	p = binary.BigEndian.AppendUint16(p, destination)
	p = binary.BigEndian.AppendUint16(append(p, 0, 0), blocks)
	p = binary.BigEndian.AppendUint64(p, from)
	return binary.BigEndian.AppendUint64(p, to)
}

func bytesSegment(source, destination uint16, n uint32, from, to uint64, fromByte, toByte uint16) []byte {
	p := []byte{0x0A, 0, 0, 0x1C}
	p = binary.BigEndian.AppendUint16(p, source)
	p = binary.BigEndian.AppendUint16(p, destination)
	p = binary.BigEndian.AppendUint32(p, n)
	p = binary.BigEndian.AppendUint64(p, from)
	p = binary.BigEndian.AppendUint64(p, to)
	p = binary.BigEndian.AppendUint16(p, fromByte)
	return binary.BigEndian.AppendUint16(p, toByte)
}

// list is the parameter list of an EXTENDED COPY with the two logical units as 0 and 1.
func (r *copyRig) list(id byte, segments ...[]byte) []byte {
	return copyList(id, [][]byte{cscd(r.unit), cscd(r.other)}, segments...)
}

func copyList(id byte, cscds [][]byte, segments ...[]byte) []byte {
	c, s := bytes.Join(cscds, nil), bytes.Join(segments, nil)
	p := make([]byte, 16)
	p[0] = id
	binary.BigEndian.PutUint16(p[2:], uint16(len(c)))
	binary.BigEndian.PutUint32(p[8:], uint32(len(s)))
	return slices.Concat(p, c, s)
}

// cdbCopyOut is a CDB of a third-party copy command with n bytes of data-out.
func cdbCopyOut(action byte, list uint32, n int) string {
	return fmt.Sprintf("83 %02X 00000000 %08X %08X 00 00", action, list, n)
}

func (r *copyRig) copied(list []byte) *Command {
	r.t.Helper()
	return r.run(cdbCopyOut(0, 0, len(list)), list...)
}

func TestExtendedCopy(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	copy(r.mem.data, pattern(3<<20, 1))
	for i := range 3 << 20 / ProvisioningBlock {
		r.mem.allocated[i] = true
	}
	want := slices.Clone(r.mem.data)
	wantGood(t, r.copied(nil))
	list := r.list(7,
		blocksSegment(0, 1, 4096, 16, 100),                // 2 MiB to the other one, more than one buffer
		bytesSegment(0, xcopy.Self, 1024, 2, 16000, 0, 0), // within the one that got the command
		bytesSegment(0, 1, 512, 0, 0, 512, 1024),          // with offsets
		blocksSegment(0, 1, 0, 0, copyBlocks),             // nothing
		bytesSegment(0, 1, 4<<20, 4096, 8192, 0, 0),       // 1 MiB of data, 3 MiB of nothing
	)
	wantGood(t, r.copied(list))
	if !bytes.Equal(r.otherMem.data[100*512:][:2<<20], want[16*512:][:2<<20]) || !bytes.Equal(r.mem.data[16000*512:][:1024], want[1024:2048]) ||
		!bytes.Equal(r.otherMem.data[1024:1536], want[512:1024]) || !bytes.Equal(r.otherMem.data[4<<20:], want[2<<20:6<<20]) {
		t.Error("the data are not what was to be copied")
	}
	if r.otherMem.allocated[5<<20/ProvisioningBlock] || !r.otherMem.allocated[5<<20/ProvisioningBlock-1] {
		t.Error("what was never written takes space in the copy")
	}
	wantBytes(t, r.good("84 00 07 00000000000000 0000FFFF 00 00"), "00000008 01 0005 00 00600600")
	wantBytes(t, r.good("84 04 07 00000000000000 0000FFFF 00 00"), "00000000")
	wantBytes(t, r.good("84 00 07 00000000000000 00000005 00 00"), "00000008 01")
	r.sense(InvalidFieldInCDB, "84 00 08 00000000000000 0000FFFF 00 00")
	r.sense(InvalidFieldInCDB, "84 04 08 00000000000000 0000FFFF 00 00")
	list[1] = 3 << 3 // no list identifier
	list[0] = 9
	wantGood(t, r.copied(list))
	r.sense(InvalidFieldInCDB, "84 00 09 00000000000000 0000FFFF 00 00")
	r.sense(InvalidFieldInCommandIU, cdbCopyOut(0, 0, len(list)), list[:len(list)-1]...)
	if c := r.sense(ParameterListLengthError, cdbCopyOut(0, 0, len(list)-1), list[:len(list)-1]...); c.Transfer != uint64(len(list)-1) {
		t.Errorf("transfer %d", c.Transfer)
	}
	if n := len(r.good("84 03 00 00000000000000 0000FFFF 00 00")); n != 47 {
		t.Errorf("%d bytes of operating parameters", n)
	}
}

// Where source and destination overlap, the destination has what the source had.
func TestExtendedCopyOverlap(t *testing.T) {
	for _, c := range []struct{ from, to, blocks uint64 }{
		{0, 1, 4096},
		{1, 0, 4096},
		{0, 2048, 8000},
		{2048, 0, 8000},
		{100, 101, 2048},
		{0, 4096, 12000},
	} {
		r := newCopyRig(t, 512, 512)
		copy(r.mem.data, pattern(5<<20, 3))
		for i := range 5 << 20 / ProvisioningBlock {
			r.mem.allocated[i] = true
		}
		want := slices.Clone(r.mem.data)
		copy(want[c.to*512:], slices.Clone(want[c.from*512:(c.from+c.blocks)*512]))
		wantGood(t, r.copied(r.list(1, blocksSegment(0, 0, uint16(c.blocks), c.from, c.to))))
		if !bytes.Equal(r.mem.data, want) {
			t.Errorf("%+v: other data", c)
		}
	}
}

func TestExtendedCopyRefuses(t *testing.T) {
	r := newCopyRig(t, 512, 4096)
	one := blocksSegment(0, 1, 8, 0, 0)
	spoil := func(at int, b byte) []byte {
		c := cscd(r.unit)
		c[at] = b
		return copyList(1, [][]byte{c, cscd(r.other)}, one)
	}
	for name, c := range map[string]struct {
		list []byte
		code SenseCode
		at   uint16 // in the segment descriptor, 0 none
	}{
		"index":                     {r.list(1, blocksSegment(0, 2, 8, 0, 0)), 0x0A0804, 6},
		"index of a source":         {r.list(1, blocksSegment(0xF800, 1, 8, 0, 0)), 0x0A0804, 4},
		"hidden from the initiator": {copyList(1, [][]byte{cscd(r.hidden), cscd(r.other)}, one), 0x0A0D02, 4},
		"a copy onto a hidden one":  {copyList(1, [][]byte{cscd(r.unit), cscd(r.hidden)}, one), 0x0A0D02, 6},
		"designator cut":            {spoil(7, 15), 0x0A0D02, 4},
		"designator of a port":      {spoil(5, 0x13), 0x0A0D02, 4},
		"designator type":           {spoil(5, 2), 0x0A0D02, 4},
		"code set":                  {spoil(4, 2), 0x0A0D02, 4},
		"device type":               {spoil(1, 1), 0x0A0D03, 4},
		"block length":              {spoil(30, 1), 0x0A0D03, 4},
		"source beyond the end":     {r.list(1, blocksSegment(0, 1, 16, copyBlocks-8, 0)), 0x0A0000, 12},
		"destination beyond":        {r.list(1, blocksSegment(0, 1, 16, 0, copyBlocks/8-1)), 0x0A0000, 20},
		"destination overflows":     {r.list(1, blocksSegment(0, 1, 8, 0, 1<<63)), 0x0A0000, 20},
		"not whole blocks":          {r.list(1, blocksSegment(0, 1, 9, 0, 0)), 0x0A260A, 0},
		"not whole sectors":         {r.list(1, bytesSegment(0, 1, 513, 0, 0, 0, 0)), 0x0A260A, 0},
		"offset in a sector":        {r.list(1, bytesSegment(0, 1, 512, 0, 0, 1, 0)), 0x0A260A, 0},
		"too long":                  {r.list(1, bytesSegment(0, 1, xcopy.SegmentBytesMax+512, 0, 0, 0, 0)), 0x052600, 8},
	} {
		calls := len(r.otherMem.calls)
		command := r.copied(c.list)
		wantSense(t, command, c.code)
		s := command.Sense()
		if at := binary.BigEndian.Uint16(s[16:]); at != c.at || c.at != 0 && s[15] != 0xA0 || binary.BigEndian.Uint32(s[8:]) != 0 {
			t.Errorf("%s: sense % X", name, s)
		}
		if len(r.otherMem.calls) != calls {
			t.Errorf("%s: something was written", name)
		}
	}
	wantGood(t, r.copied(r.list(1, bytesSegment(0, 1, 512, 3, 1, 0, 512)))) // a part of a block, whole sectors
	r.remap(true, func(m *Mapping) { m.ReadOnly = true })
	r.run("00 00 00 00 00 00") // the unit attention
	wantSense(t, r.copied(r.list(1, one)), 0x0A2700)
	wantGood(t, r.copied(r.list(1, blocksSegment(1, 0, 1, 0, 0)))) // it can be read
}

// What was copied before the segment that failed, and why that failed, can be asked once.
func TestExtendedCopyFails(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	copy(r.mem.data, pattern(4096, 1))
	r.mem.allocated[0] = true
	list := r.list(3, blocksSegment(0, 1, 8, 0, 0), blocksSegment(0, 1, 8, 0, 8), blocksSegment(0, 1, 8, 0, 8))
	r.otherMem.gate = func(context.Context) error {
		if len(r.otherMem.calls) == 1 {
			return ErrNoSpace
		}
		return nil
	}
	c := r.copied(list)
	wantSense(t, c, 0x0A2707)
	if binary.BigEndian.Uint32(c.Sense()[8:]) != 1 {
		t.Errorf("sense % X", c.Sense())
	}
	wantBytes(t, r.good("84 00 03 00000000000000 0000FFFF 00 00"), "00000008 02 0001 00 00001000")
	details := r.good("84 04 03 00000000000000 0000FFFF 00 00")
	if len(details) != 60+18 || details[56] != 2 || !bytes.Equal(details[60:], c.Sense()) || details[3] != 74 {
		t.Errorf("% X", details)
	}
	r.sense(InvalidFieldInCDB, "84 04 03 00000000000000 0000FFFF 00 00")
	r.otherMem.gate = func(context.Context) error { return errors.New("broken") }
	wantSense(t, r.copied(list), 0x0A0D01)
	r.otherMem.gate = nil
	wantGood(t, r.copied(list))
}

// stall makes writes to the second logical unit wait for their context; begun is closed by the first one.
func (r *copyRig) stall() (begun chan struct{}) {
	copy(r.mem.data, pattern(8192, 1))
	r.mem.allocated[0] = true
	begun = make(chan struct{})
	var once atomic.Bool
	r.otherMem.gate = func(ctx context.Context) error {
		if once.CompareAndSwap(false, true) {
			close(begun)
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return begun
}

func (r *copyRig) start(ctx context.Context, list []byte) (c *Command, end chan error) {
	c = &Command{CDB: fromHex(r.t, cdbCopyOut(0, 0, len(list))), DataOut: list}
	end = make(chan error, 1)
	go func() { end <- r.nexus.Execute(ctx, c) }()
	return c, end
}

func TestExtendedCopyAborted(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	begun := r.stall()
	ctx, cancel := context.WithCancel(t.Context())
	c, end := r.start(ctx, r.list(3, blocksSegment(0, 1, 8, 0, 0)))
	<-begun
	wantBytes(t, r.good("84 00 03 00000000000000 0000FFFF 00 00"), "00000008 00 0000 00 00000000")
	wantSense(t, r.copied(r.list(3, blocksSegment(0, 1, 8, 0, 0))), OperationInProgress)
	cancel()
	c.FenceElsewhere()
	if n := r.otherMem.fences.Load(); n != 1 {
		t.Errorf("%d fences of the destination", n)
	}
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	c.FenceElsewhere()
	if n := r.otherMem.fences.Load(); n != 1 {
		t.Errorf("%d fences after the end", n)
	}
	wantBytes(t, r.good("84 00 03 00000000000000 0000FFFF 00 00"), "00000008 02 0000 00 00000000")
	if len(r.otherMem.calls) != 0 {
		t.Error("something was written")
	}
}

func TestExtendedCopyReset(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	begun := r.stall()
	c, end := r.start(t.Context(), r.list(3, blocksSegment(0, 1, 8, 0, 0)))
	<-begun
	other := r.login(NoSense)
	other.ResetLogicalUnit(FlatLUN(1), func() {})
	if n := r.otherMem.fences.Load(); n != 1 {
		t.Errorf("%d fences when the reset is done", n)
	}
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	wantSense(t, c, 0x0A0D01)
	if r.other.Copies.Running() != 0 {
		t.Error("the copy is still known")
	}
}

func TestExtendedCopyUnmapped(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	copy(r.mem.data, pattern(4<<20, 1))
	for i := range r.mem.allocated {
		r.mem.allocated[i] = true
	}
	r.otherMem.gate = func(context.Context) error {
		r.remap(false)
		r.otherMem.gate = nil
		return nil
	}
	c := r.copied(r.list(3, blocksSegment(0, 1, 8192, 0, 0)))
	wantSense(t, c, 0x0A0D02)
	if len(r.otherMem.calls) != 1 {
		t.Errorf("%d writes", len(r.otherMem.calls))
	}
}

// Only so many copies of a nexus run at a time, and only so many results are kept.
func TestExtendedCopyBounds(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	one := blocksSegment(0, 1, 8, 0, 0)
	for id := range byte(xcopy.ConcurrentMax + 1) {
		wantGood(t, r.copied(r.list(id, one)))
	}
	r.sense(InvalidFieldInCDB, "84 00 00 00000000000000 0000FFFF 00 00")
	r.good("84 00 01 00000000000000 0000FFFF 00 00")
	r.good(fmt.Sprintf("84 00 %02X 00000000000000 0000FFFF 00 00", xcopy.ConcurrentMax))
	ctx, cancel := context.WithCancel(t.Context())
	r.stall()
	var ends []chan error
	for id := range byte(xcopy.ConcurrentMax) {
		_, end := r.start(ctx, r.list(id, one))
		ends = append(ends, end)
	}
	for tries := 0; r.other.Copies.Running() < xcopy.ConcurrentMax; tries++ {
		if tries > 10000 {
			t.Fatal("the copies do not begin")
		}
		time.Sleep(time.Millisecond)
	}
	wantSense(t, r.copied(r.list(200, nil)), InsufficientResources)
	cancel()
	for _, end := range ends {
		<-end
	}
	wantGood(t, r.copied(r.list(200, nil)))
}

// populate makes a token of the first logical unit.
func (r *copyRig) populate(list uint32, ranges ...odx.Range) *odx.Token {
	r.t.Helper()
	p := make([]byte, 16)
	p[2] = 1 // IMMED
	p = appendRanges(p, 14, ranges)
	r.good(cdbCopyOut(0x10, list, len(p)), p...)
	info := r.good(fmt.Sprintf("84 07 %08X 00000000 00000400 00 00", list))
	if len(info) != 32+4+514 || info[4] != 0x10 || info[5] != 1 {
		r.t.Fatalf("% X", info)
	}
	return (*odx.Token)(info[38:])
}

func appendRanges(p []byte, lengthAt int, ranges []odx.Range) []byte {
	n := len(p)
	for _, g := range ranges {
		p = binary.BigEndian.AppendUint64(p, g.LBA)
		p = binary.BigEndian.AppendUint32(p, g.Blocks)
		p = append(p, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	binary.BigEndian.PutUint16(p[lengthAt:], uint16(len(p)-n))
	return p
}

// use runs WRITE USING TOKEN at a LUN of a nexus.
func use(t testing.TB, n *Nexus, lun uint16, flags byte, offset uint64, token *odx.Token, ranges ...odx.Range) *Command {
	t.Helper()
	p := make([]byte, 16)
	p[2] = flags
	binary.BigEndian.PutUint64(p[8:], offset)
	p = appendRanges(slices.Concat(p, token[:], make([]byte, 8)), 534, ranges)
	c := &Command{LUN: FlatLUN(lun), CDB: fromHex(t, cdbCopyOut(0x11, 0x42, len(p))), DataOut: p}
	if err := n.Execute(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestToken(t *testing.T) {
	for _, otherBlock := range []int{512, 4096} {
		r := newCopyRig(t, 512, otherBlock)
		copy(r.mem.data, pattern(4<<20, 1))
		for i := range 4 << 20 / ProvisioningBlock {
			r.mem.allocated[i] = true
		}
		token := r.populate(0x01020304, odx.Range{LBA: 64, Blocks: 4096}, odx.Range{LBA: 8192, Blocks: 2048}, odx.Range{LBA: 0, Blocks: 8})
		data := slices.Concat(r.mem.data[64*512:][:2<<20], r.mem.data[4<<20:][:1<<20], r.mem.data[:4096])
		per := uint64(otherBlock / 512)
		blocks := func(n int) uint32 { return uint32(n / otherBlock) }
		wantGood(t, use(t, r.nexus, 1, 0, 0, token, odx.Range{LBA: 80 / per, Blocks: blocks(1 << 20)}, odx.Range{LBA: 8192 / per, Blocks: blocks(2<<20 + 4096)}))
		got := slices.Concat(r.otherMem.data[80*512:][:1<<20], r.otherMem.data[4<<20:][:2<<20+4096])
		if !bytes.Equal(got, data) {
			t.Error("the data are not those of the token")
		}
		if r.otherMem.allocated[6<<20/ProvisioningBlock-1] {
			t.Error("zeroes take space")
		}
		info := &Command{LUN: FlatLUN(1), CDB: fromHex(t, "84 07 00000042 00000000 00000400 00 00"), MaxDataIn: 1024}
		if err := r.nexus.Execute(t.Context(), info); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, info.DataIn, fmt.Sprintf("00000020 11 01 0000 FFFFFFFF 00 00 00 F1 %016X 0000 000000000000 00000000", len(data)/otherBlock))
		// From an offset, in the middle of a piece and across two, by another session of the initiator.
		second := r.login(NoSense)
		wantGood(t, use(t, second, 1, 0, (1<<20-8192)/uint64(otherBlock), token, odx.Range{LBA: 0, Blocks: blocks(16384)}))
		if !bytes.Equal(r.otherMem.data[:16384], data[1<<20-8192:][:16384]) {
			t.Error("the data are not those of the token at the offset")
		}
		wantSense(t, use(t, second, 1, 0, uint64(blocks(len(data))), token, odx.Range{LBA: 0, Blocks: 1}), InvalidFieldInParameters)
		wantSense(t, use(t, second, 1, 0, 1<<63, token, odx.Range{LBA: 0, Blocks: 1}), InvalidFieldInParameters)
		wantGood(t, use(t, second, 1, 2, 0, token, odx.Range{LBA: 0, Blocks: 1})) // and delete it
		wantSense(t, use(t, second, 1, 0, 0, token, odx.Range{LBA: 0, Blocks: 1}), 0x052304)
	}
}

// A token is never written by once its source has changed, whoever changed it; what has not changed goes on.
func TestTokenRevoked(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	copy(r.mem.data, pattern(4<<20, 1))
	for i := range r.mem.allocated {
		r.mem.allocated[i] = true
	}
	token := r.populate(1, odx.Range{LBA: 0, Blocks: 8192})
	r.mem.data[2<<20+5] ^= 1 // as through another gateway
	want := slices.Clone(r.mem.data[:2<<20])
	c := use(t, r.nexus, 1, 0, 0, token, odx.Range{LBA: 0, Blocks: 8192})
	wantSense(t, c, 0x052306)
	if !bytes.Equal(r.otherMem.data[:2<<20], want) || !bytes.Equal(r.otherMem.data[2<<20:], make([]byte, 6<<20)) {
		t.Error("what was not in the token was written")
	}
	info := &Command{LUN: FlatLUN(1), CDB: fromHex(t, "84 07 00000042 00000000 00000400 00 00"), MaxDataIn: 1024}
	if err := r.nexus.Execute(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, info.DataIn[:24], "00000032 11 02 0000 FFFFFFFF 02 12 12 F1 0000000000001000")
	wantSense(t, use(t, r.nexus, 1, 0, 0, token, odx.Range{LBA: 0, Blocks: 1}), 0x052304)

	token = r.populate(1, odx.Range{LBA: 0, Blocks: 8})
	r.good("42 00 00000000 00 0018 00", unmapList(0, 8)...)
	wantSense(t, use(t, r.nexus, 1, 0, 0, token, odx.Range{LBA: 0, Blocks: 1}), 0x052306)
	token = r.populate(1, odx.Range{LBA: 0, Blocks: 8}) // of nothing
	wantGood(t, use(t, r.nexus, 1, 0, 0, token, odx.Range{LBA: 0, Blocks: 1}))
	r.good("2A 00 00000000 00 0001 00", fill(512, 1)...)
	wantSense(t, use(t, r.nexus, 1, 0, 0, token, odx.Range{LBA: 0, Blocks: 1}), 0x052306)
}

// A token is worth nothing to who does not see its source, and says so as for one that nobody made.
func TestTokenOfAnother(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	copy(r.mem.data, pattern(4096, 1))
	token := r.populate(1, odx.Range{LBA: 0, Blocks: 8})
	thief := NewNexus(NexusConfig{InitiatorName: "iqn.x:thief", TargetPort: testPort, Copies: testCopies}, r.otherLUNs)
	wantSense(t, use(t, thief, 1, 0, 0, token, odx.Range{LBA: 0, Blocks: 8}), 0x052304)
	made := *token
	made[200]++
	wantSense(t, use(t, r.nexus, 1, 0, 0, &made, odx.Range{LBA: 0, Blocks: 8}), 0x052304)
	if len(r.otherMem.calls) != 0 {
		t.Error("something was written")
	}
	made = odx.Token{0x00, 0x01}
	wantSense(t, use(t, r.nexus, 1, 0, 0, &made, odx.Range{LBA: 0, Blocks: 8}), 0x052301)
	// The results are those of a nexus and a logical unit.
	second := r.login(NoSense)
	for lun, n := range map[uint16]*Nexus{0: second, 1: r.nexus} {
		c := &Command{LUN: FlatLUN(lun), CDB: fromHex(t, "84 07 00000001 00000000 00000400 00 00"), MaxDataIn: 1024}
		if err := n.Execute(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		wantSense(t, c, InvalidFieldInCDB)
	}
}

func TestZeroToken(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	copy(r.otherMem.data, fill(1<<20, 0xEE))
	for i := range r.otherMem.allocated {
		r.otherMem.allocated[i] = true
	}
	zero := odx.Token{0xFF, 0xFF, 0, 1, 0, 0, 1, 0xF8}
	wantGood(t, use(t, r.nexus, 1, 0, 1<<40, &zero, odx.Range{LBA: 16, Blocks: 100}, odx.Range{LBA: 3, Blocks: 2}))
	want := fill(1<<20, 0xEE)
	clear(want[16*512 : 116*512])
	clear(want[3*512 : 5*512])
	if !bytes.Equal(r.otherMem.data[:1<<20], want) || r.otherMem.allocated[2] || !r.otherMem.allocated[0] {
		t.Error("the ranges are not zero, or more is")
	}
}

func TestTokenRefuses(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	populate := func(ranges ...odx.Range) *Command {
		p := appendRanges(make([]byte, 16), 14, ranges)
		return r.run(cdbCopyOut(0x10, 1, len(p)), p...)
	}
	wantSense(t, populate(odx.Range{LBA: copyBlocks, Blocks: 1}), LBAOutOfRange)
	wantSense(t, populate(odx.Range{LBA: 0, Blocks: 2}, odx.Range{LBA: 1, Blocks: 1}), InvalidFieldInParameters)
	r.good(cdbCopyOut(0x10, 1, 0))
	r.good(cdbCopyOut(0x11, 1, 0))
	r.sense(ParameterListLengthError, cdbCopyOut(0x10, 1, 1), 0)
	r.sense(InvalidFieldInCommandIU, cdbCopyOut(0x10, 1, 32), make([]byte, 31)...)
	r.mem.fail = ErrMedium
	wantSense(t, populate(odx.Range{LBA: 0, Blocks: 2}), UnrecoveredReadError)
	info := r.good("84 07 00000001 00000000 00000400 00 00")
	if info[5] != 2 || info[12] != 2 || info[14] != 18 || len(info) != 32+18+4 {
		t.Errorf("% X", info)
	}
	r.mem.fail = nil
	r.remap(true, func(m *Mapping) { m.ReadOnly = true })
	r.run("00 00 00 00 00 00")
	zero := odx.Token{0xFF, 0xFF, 0, 1, 0, 0, 1, 0xF8}
	use(t, r.nexus, 1, 0, 0, &zero, odx.Range{}) // the unit attention
	wantSense(t, use(t, r.nexus, 1, 0, 0, &zero, odx.Range{LBA: 0, Blocks: 1}), WriteProtected)
	without := NewNexus(NexusConfig{InitiatorName: "iqn.x:host", TargetPort: testPort}, r.luns)
	wantSense(t, use(t, without, 0, 0, 0, &zero, odx.Range{LBA: 0, Blocks: 1}), InsufficientResources)
}

// The Third-party Copy page is well formed, and names the commands that there are.
func TestThirdPartyPage(t *testing.T) {
	r := newCopyRig(t, 4096, 4096)
	page := r.good("12 01 8F 0400 00")
	if page[1] != 0x8F || int(binary.BigEndian.Uint16(page[2:])) != len(page)-4 {
		t.Fatalf("% X", page[:4])
	}
	var types []uint16
	named := map[[2]byte]bool{}
	for p := page[4:]; len(p) > 0; {
		kind, n := binary.BigEndian.Uint16(p), int(binary.BigEndian.Uint16(p[2:]))
		if n%4 != 0 || n+4 > len(p) {
			t.Fatalf("descriptor %04X of %d bytes", kind, n)
		}
		types = append(types, kind)
		if kind == 1 {
			for c := p[5 : 5+p[4]]; len(c) > 0; c = c[2+c[1]:] {
				for _, action := range c[2 : 2+c[1]] {
					named[[2]byte{c[0], action}] = true
				}
			}
		}
		p = p[4+n:]
	}
	if !slices.Equal(types, []uint16{0, 1, 4, 8, 0xC, 0x106, 0x108, 0x8001, 0xC001}) {
		t.Errorf("descriptors %04X", types)
	}
	for _, op := range allOperations.All {
		if op.opcode() == 0x83 || op.opcode() == 0x84 {
			key := [2]byte{op.opcode(), byte(op.serviceAction())}
			if !named[key] {
				t.Errorf("%s is not named", op.name)
			}
			delete(named, key)
		}
	}
	if len(named) != 0 {
		t.Errorf("named, but not there: %v", named)
	}
	if got := binary.BigEndian.Uint64(page[4+20:]); got != odx.TransferMax/4096 {
		t.Errorf("longest transfer %d", got)
	}
}

// barred is a Backend whose logical unit another nexus has reserved.
type barred struct {
	*fenced
	refreshed int
	bound     []uint64 // access generations of writes
}

func (*barred) Reserve(context.Context, *reservation.Request) (reservation.Status, error) {
	return 0, errors.New("not asked for")
}

func (*barred) Reservations(context.Context) (*Reservations, error) {
	return nil, errors.New("not asked for")
}

func (b *barred) Refresh(context.Context, *Reservations) error {
	b.refreshed++
	return nil
}
func (*barred) EndLegacy(*reservation.Request)     {}
func (*barred) Reset(*reservation.Request, func()) {}
func (b *barred) Write(ctx context.Context, p []byte, off int64) error {
	b.bound = append(b.bound, reservation.AccessOf(ctx))
	if reservation.AccessOf(ctx) != 7 {
		return errors.New("not bound to the state of this logical unit")
	}
	return b.fenced.Write(ctx, p, off)
}

// The reservations of the destination count, and those of the source, not only those of who got the command.
func TestExtendedCopyReserved(t *testing.T) {
	r := newCopyRig(t, 512, 512)
	b := &barred{fenced: r.otherMem}
	r.remap(true, func(m *Mapping) { m.Backend = b })
	copy(r.mem.data, pattern(4096, 1))
	r.mem.allocated[0] = true
	r.run("00 00 00 00 00 00")
	reserve := func(kind reservation.Type, version uint64) {
		holder := reservation.Nexus{Initiator: "iqn.x:other", ISID: reservation.ISID{1}, Port: 1}
		s := &reservation.State{}
		for _, q := range []reservation.Request{
			{Action: reservation.Register, Nexus: holder, ServiceKey: 1, Ports: []uint16{1}},
			{Action: reservation.Reserve, Nexus: holder, Key: 1, Type: kind},
		} {
			next := s.Apply(&q)
			if next.Status != reservation.Good {
				t.Fatal(next.Status)
			}
			s = next.State
		}
		state := *s
		state.Version = version
		r.other.SetReservations(&Reservations{Access: 7, State: &state})
	}
	there, back := r.list(1, blocksSegment(0, 1, 8, 0, 0)), r.list(2, blocksSegment(1, 0, 8, 0, 64))
	reserve(reservation.WriteExclusive, 100)
	wantSense(t, r.copied(there), 0x0A0D01)
	if b.refreshed != 1 || len(r.otherMem.calls) != 0 {
		t.Errorf("%d refreshs, %d writes", b.refreshed, len(r.otherMem.calls))
	}
	wantGood(t, r.copied(back))
	reserve(reservation.ExclusiveAccess, 200)
	wantSense(t, r.copied(back), 0x0A0D01)
	r.other.SetReservations(&Reservations{Access: 8, State: &reservation.State{Version: 300}})
	wantSense(t, r.copied(there), 0x0A0D01) // not reserved, and bound to 8, which is not what this Backend looks for
}

// erased is a Backend of which a SANITIZE begins right after it was asked asks times whether there is one.
type erased struct {
	*barred
	asks  int
	begin func()
}

func (e *erased) Sanitizing() sanitize.Status {
	if e.asks == 0 {
		return sanitize.Status{State: sanitize.Running}
	}
	if e.asks--; e.asks == 0 {
		e.begin()
	}
	return sanitize.Status{}
}

func (*erased) ExitSanitize(context.Context, reservation.Nexus) error { return nil }

func (*erased) Sanitize(context.Context, reservation.Nexus, sanitize.Order, int64) (<-chan struct{}, error) {
	return nil, ErrSanitizing
}

// What comes between two writes of a copy ends it: somebody sets SWP in the destination, or begins to sanitize it.
func TestThirdPartyCopyStops(t *testing.T) {
	for _, c := range []struct {
		name     string
		token    bool
		sanitize bool
		want     SenseCode
	}{
		{"EXTENDED COPY, SWP", false, false, 0x0A2702},
		{"WRITE USING TOKEN, SWP", true, false, SoftwareWriteProtected},
		{"EXTENDED COPY, SANITIZE", false, true, 0x0A0D01},
		{"WRITE USING TOKEN, SANITIZE", true, true, SanitizeInProgress},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newCopyRig(t, 512, 512)
			b := &barred{fenced: r.otherMem}
			var next reservation.State
			next.Version = 200
			turn := func() { r.other.SetReservations(&Reservations{Access: 8, State: &next}) }
			e := &erased{barred: b, asks: 1, begin: turn}
			r.remap(true, func(m *Mapping) {
				if m.Backend = b; c.sanitize {
					m.Backend = e
				}
			})
			r.other.SetReservations(&Reservations{Access: 7, State: &reservation.State{Version: 100}})
			copy(r.mem.data, pattern(4096, 1))
			r.mem.allocated[0] = true
			r.run("00 00 00 00 00 00")
			token := r.populate(1, odx.Range{LBA: 0, Blocks: 8})
			if !c.sanitize {
				next.Modes.Now = reservation.WriteProtect
			}
			r.otherMem.gate = func(context.Context) error { // as the copysets of another gateway's change do
				if !c.sanitize {
					turn()
				}
				return ErrAccessChanged
			}
			var got *Command
			if c.token {
				e.asks += 2 // by the command, when it is admitted and when it begins
				got = use(t, r.nexus, 1, 0, 0, token, odx.Range{LBA: 0, Blocks: 8})
			} else {
				got = r.copied(r.list(1, blocksSegment(0, 1, 8, 0, 0)))
			}
			wantSense(t, got, c.want)
			if !slices.Equal(b.bound, []uint64{7}) {
				t.Errorf("writes bound to %v", b.bound)
			}
		})
	}
}

// FuzzThirdPartyCopy throws parameter lists at the commands that copy. Whatever is in them, nothing is written to what the
// initiator does not see, and a command ends with a status.
func FuzzThirdPartyCopy(f *testing.F) {
	r := newCopyRig(f, 512, 512)
	copy(r.mem.data, pattern(8192, 1))
	token := r.populate(1, odx.Range{LBA: 0, Blocks: 16})
	f.Add(byte(0x00), r.list(1, blocksSegment(0, 1, 8, 0, 0), bytesSegment(1, 0, 1024, 0, 64, 0, 512)))
	f.Add(byte(0x00), copyList(1, [][]byte{cscd(r.hidden), cscd(r.other)}, blocksSegment(0, 1, 8, 0, 0)))
	f.Add(byte(0x10), appendRanges(make([]byte, 16), 14, []odx.Range{{LBA: 1, Blocks: 8}, {LBA: 100, Blocks: 9}}))
	f.Add(byte(0x11), appendRanges(append(append(make([]byte, 16), token[:]...), make([]byte, 8)...), 534, []odx.Range{{LBA: 9, Blocks: 16}}))
	zero := odx.Token{0xFF, 0xFF, 0, 1, 0, 0, 1, 0xF8}
	f.Add(byte(0x11), appendRanges(append(append(make([]byte, 16), zero[:]...), make([]byte, 8)...), 534, []odx.Range{{LBA: 9, Blocks: 16}}))
	hidden := r.otherLUNs.Mappings()[0].Backend.(*memory)
	run := func(t *testing.T, cdb string, list []byte) {
		c := &Command{CDB: fromHex(t, cdb), DataOut: list, MaxDataIn: 1024}
		if err := r.nexus.Execute(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		checkOutcome(t, c, 0)
	}
	f.Fuzz(func(t *testing.T, action byte, list []byte) {
		if len(list) > 8192 || action != 0x00 && action != 0x10 && action != 0x11 {
			return
		}
		run(t, cdbCopyOut(action, 1, len(list)), list)
		run(t, "84 00 01 00000000000000 00000400 00 00", nil)
		run(t, "84 04 01 00000000000000 00000400 00 00", nil)
		run(t, "84 07 00000001 00000000 00000400 00 00", nil)
		if len(hidden.calls) != 0 || hidden.reads.Load() != 0 {
			t.Fatal("a hidden logical unit was reached")
		}
	})
}
