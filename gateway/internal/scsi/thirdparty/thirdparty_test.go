package thirdparty

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/odx"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/xcopy"
)

// disk is a Medium over a slice that knows which of its sectors were written.
type disk struct {
	data    []byte
	written []bool
	gate    func(ctx context.Context) error
	largest int
}

func newDisk(sectors int) *disk {
	return &disk{data: make([]byte, sectors*sector), written: make([]bool, sectors)}
}

func (d *disk) check(off, length int64) {
	if off%sector != 0 || length%sector != 0 || length == 0 || off < 0 || off+length > int64(len(d.data)) {
		panic(fmt.Sprintf("%d bytes at %d", length, off))
	}
}

func (d *disk) enter(ctx context.Context) error {
	if d.gate == nil {
		return nil
	}
	return d.gate(ctx)
}

func (d *disk) Read(ctx context.Context, p []byte, off int64) error {
	d.check(off, int64(len(p)))
	copy(p, d.data[off:])
	return d.enter(ctx)
}

func (d *disk) Write(ctx context.Context, p []byte, off int64) error {
	d.check(off, int64(len(p)))
	if err := d.enter(ctx); err != nil {
		return err
	}
	d.largest = max(d.largest, len(p))
	copy(d.data[off:], p)
	d.mark(off, int64(len(p)), true)
	return nil
}

func (d *disk) Zero(ctx context.Context, off, length int64) error {
	d.check(off, length)
	if err := d.enter(ctx); err != nil {
		return err
	}
	clear(d.data[off : off+length])
	d.mark(off, length, false)
	return nil
}

func (d *disk) mark(off, length int64, written bool) {
	for i := off / sector; i < (off+length)/sector; i++ {
		d.written[i] = written
	}
}

func (d *disk) Allocated(_ context.Context, off, length int64) (bool, int64, error) {
	d.check(off, length)
	first := off / sector
	i := first
	for ; i < (off+length)/sector && d.written[i] == d.written[first]; i++ {
	}
	return d.written[first], (i - first) * sector, nil
}

// fillSome writes runs of random length and leaves others out.
func (d *disk) fillSome(rnd *mrand.Rand) {
	for at := 0; at < len(d.written); {
		n := min(1+rnd.IntN(400), len(d.written)-at)
		if rnd.IntN(2) == 0 {
			for p := d.data[at*sector : (at+n)*sector]; len(p) > 0; p = p[8:] {
				binary.LittleEndian.PutUint64(p, rnd.Uint64())
			}
			d.mark(int64(at*sector), int64(n*sector), true)
		}
		at += n
	}
}

func unitOf(d *disk, id byte) *Unit {
	u := &Unit{
		ID: d, Shift: 9, Blocks: uint64(len(d.written)), Medium: d, Present: func() bool { return true }, Fence: func() {},
		Copies: &Copies{},
	}
	u.NAA[0], u.NAA[15] = 0x60, id
	return u
}

// Whatever the place, the length and the holes, a copy has what the source had, and takes the space that it took but for
// short holes.
func TestMove(t *testing.T) {
	rnd := mrand.New(mrand.NewPCG(3, 4))
	for range 150 {
		a, b := newDisk(2048), newDisk(2048)
		a.fillSome(rnd)
		b.fillSome(rnd)
		from, to := unitOf(a, 1), unitOf(b, 2)
		if rnd.IntN(2) == 0 {
			to = from
		}
		n := 1 + rnd.Int64N(2048)
		m := &move{source: from, destination: to, length: n * sector, buffer: make([]byte, (1+rnd.IntN(300))*sector)}
		m.from, m.to = rnd.Int64N(2048-n+1)*sector, rnd.Int64N(2048-n+1)*sector
		moved := int64(0)
		m.moved = func(n int64) { moved += n }
		destination := to.Medium.(*disk)
		want := bytes.Clone(destination.data)
		copy(want[m.to:], bytes.Clone(a.data[m.from:m.from+m.length]))
		if failed := m.run(t.Context()); failed != nil {
			t.Fatal(failed.err)
		}
		if !bytes.Equal(destination.data, want) || moved != m.length || destination.largest > len(m.buffer) {
			t.Fatalf("%d bytes from %d to %d, same %v, buffer %d: wrong; moved %d", m.length, m.from, m.to, to == from, len(m.buffer), moved)
		}
	}
}

// What tokens write is what their source had when they were made, from any offset, to any ranges.
func TestTokens(t *testing.T) {
	rnd := mrand.New(mrand.NewPCG(5, 6))
	m := New(time.Now, rand.Reader, 2)
	var results Results
	for round := range 12 {
		a, b := newDisk(8192), newDisk(8192)
		a.fillSome(rnd)
		source, destination := unitOf(a, 1), unitOf(b, 2)
		find := func(naa []byte) *Unit {
			if bytes.Equal(naa, source.NAA[:]) {
				return source
			}
			return nil
		}
		request := func(u *Unit) *Request {
			return &Request{
				Self: u, Find: find, Results: &results, Running: &Running{}, ID: uint32(round), Owner: "i",
				Explain: func(error) uint16 { return 0 },
			}
		}
		end := func(r *Request, failure *Failure) {
			t.Helper()
			if failure != nil {
				t.Fatalf("%+v", failure)
			}
			r.End(0, nil, false)
		}
		ranges := cut(rnd, 8192)
		var data []byte
		for _, g := range ranges {
			data = append(data, a.data[g.LBA*sector:][:g.Blocks*sector]...)
		}
		r := request(source)
		end(r, m.populate(t.Context(), begun(m, r, kindPopulate), &odx.Populate{Timeout: 10, Ranges: ranges}))
		info, ok := results.Information(uint32(round))
		if !ok || info.Token == nil || info.Blocks != uint64(len(data)/sector) {
			t.Fatalf("%+v", info)
		}
		to := cut(rnd, 8192)
		var blocks uint64
		for i := range to {
			blocks += uint64(to[i].Blocks)
		}
		if blocks > uint64(len(data)/sector) {
			continue
		}
		offset := rnd.Uint64N(uint64(len(data)/sector) - blocks + 1)
		r = request(destination)
		end(r, m.write(t.Context(), begun(m, r, kindWrite), &odx.Write{Offset: offset, Token: *info.Token, Ranges: to}))
		want := make([]byte, len(b.data))
		data = data[offset*sector:]
		for _, g := range to {
			n := copy(want[g.LBA*sector:][:g.Blocks*sector], data)
			data = data[n:]
		}
		if !bytes.Equal(b.data, want) {
			t.Fatalf("ranges %v from %d to %v: other data", ranges, offset, to)
		}
	}
}

// TestTokensAbroad: a token that one gateway made is good at another one, for an initiator that sees the source there, as long as
// the source is what it was; and nothing is written by one that is not.
func TestTokensAbroad(t *testing.T) {
	home, abroad := New(time.Now, rand.Reader, 2), New(time.Now, rand.Reader, 2)
	a, b := newDisk(8192), newDisk(8192)
	a.fillSome(mrand.New(mrand.NewPCG(7, 8)))
	source, destination := unitOf(a, 1), unitOf(b, 2)
	var results Results
	id := uint32(0)
	request := func(u *Unit, visible *Unit) *Request {
		id++
		return &Request{
			Self: u, Results: &results, Running: &Running{}, ID: id, Owner: "i", Explain: func(error) uint16 { return 0 },
			Find: func(naa []byte) *Unit {
				if visible != nil && bytes.Equal(naa, visible.NAA[:]) {
					return visible
				}
				return nil
			},
		}
	}
	ranges := []odx.Range{{LBA: 5000, Blocks: 2500}, {LBA: 100, Blocks: 1000}}
	populate := func() odx.Token {
		t.Helper()
		r := request(source, source)
		if failure := home.populate(t.Context(), begun(home, r, kindPopulate), &odx.Populate{Timeout: 60, Ranges: ranges}); failure != nil {
			t.Fatalf("%+v", failure)
		}
		r.End(0, nil, false)
		info, _ := results.Information(id)
		return *info.Token
	}
	write := func(token odx.Token, visible *Unit, offset uint64, last bool) sense.Code {
		t.Helper()
		r := request(destination, visible)
		l := &odx.Write{Token: token, Offset: offset, Delete: last, Ranges: []odx.Range{{LBA: 10, Blocks: 1500}}}
		failure := abroad.write(t.Context(), begun(abroad, r, kindWrite), l)
		r.End(0, nil, false)
		if failure == nil {
			return 0
		}
		if failure.Err != nil {
			t.Fatal(failure.Err)
		}
		return failure.Sense.Code
	}
	token := populate()
	if code := write(token, nil, 0, false); code != 0x052304 {
		t.Errorf("the source is not seen: %06X", code)
	}
	small := *source
	small.Blocks = 7000
	if code := write(token, &small, 0, false); code != 0x052304 {
		t.Errorf("beyond the source: %06X", code)
	}
	if !bytes.Equal(b.data, make([]byte, len(b.data))) {
		t.Fatal("something was written")
	}
	for _, offset := range []uint64{0, 2000} { // the second time it is known
		if code := write(token, source, offset, offset > 0); code != 0 {
			t.Fatalf("%06X", code)
		}
		data := bytes.Clone(a.data[5000*sector : 7500*sector])
		data = append(data, a.data[100*sector:1100*sector]...)
		if !bytes.Equal(b.data[10*sector:1510*sector], data[offset*sector:(offset+1500)*sector]) {
			t.Fatalf("other data from %d on", offset)
		}
	}
	if code := write(token, source, 0, false); code != 0x052304 {
		t.Errorf("deleted: %06X", code)
	}
	token = populate()
	a.data[200*sector+7] ^= 1
	before := bytes.Clone(b.data)
	if code := write(token, source, 0, false); code != senseRevoked || !bytes.Equal(b.data, before) {
		t.Errorf("the source has changed: %06X", code)
	}
	a.data[200*sector+7] ^= 1
	if code := write(token, source, 0, false); code != 0x052304 {
		t.Errorf("once it was revoked: %06X", code)
	}
}

// TestTokensOfNothing: a token of no blocks is as good as any other, where it was made and abroad, as long as nothing is asked of it.
func TestTokensOfNothing(t *testing.T) {
	home, abroad := New(time.Now, rand.Reader, 2), New(time.Now, rand.Reader, 2)
	source, destination := unitOf(newDisk(64), 1), unitOf(newDisk(64), 2)
	var results Results
	id := uint32(0)
	request := func(u *Unit) *Request {
		id++
		return &Request{
			Self: u, Results: &results, Running: &Running{}, ID: id, Owner: "i", Find: func([]byte) *Unit { return source },
			Explain: func(error) uint16 { return 0 },
		}
	}
	r := request(source)
	nothing := []odx.Range{{LBA: 5}}
	if failure := home.populate(t.Context(), begun(home, r, kindPopulate), &odx.Populate{Timeout: 60, Ranges: nothing}); failure != nil {
		t.Fatalf("%+v", failure)
	}
	r.End(0, nil, false)
	info, _ := results.Information(id)
	for _, m := range []*Manager{home, home, abroad, abroad} {
		for blocks, want := range []sense.Code{0, 0x052600, 0} {
			r := request(destination)
			l := &odx.Write{Token: *info.Token, Ranges: []odx.Range{{LBA: 7, Blocks: uint32(blocks % 2)}}}
			failure := m.write(t.Context(), begun(m, r, kindWrite), l)
			r.End(0, nil, false)
			if failure == nil && want != 0 || failure != nil && (failure.Err != nil || failure.Sense.Code != want) {
				t.Errorf("%d blocks, abroad %v: %+v", blocks%2, m == abroad, failure)
			}
		}
	}
}

// begun enters a request into its results.
func begun(m *Manager, r *Request, k kind) *Request {
	m.begin(r, k, true)
	return r
}

// cut makes ranges that do not overlap, in any order.
func cut(rnd *mrand.Rand, blocks uint64) []odx.Range {
	var out []odx.Range
	for at := rnd.Uint64N(100); at < blocks; {
		n := min(1+rnd.Uint64N(1500), blocks-at)
		out = append(out, odx.Range{LBA: at, Blocks: uint32(n)})
		at += n + rnd.Uint64N(2000)
	}
	rnd.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// Copies beyond the bound wait for room, as long as their command is wanted.
func TestRoom(t *testing.T) {
	m := New(time.Now, rand.Reader, 1)
	a, b := newDisk(64), newDisk(64)
	begun, goOn := make(chan struct{}), make(chan struct{})
	a.gate = func(context.Context) error {
		close(begun)
		<-goOn
		return nil
	}
	a.mark(0, 64*sector, true)
	source, destination := unitOf(a, 1), unitOf(b, 2)
	results := &Results{}
	request := func(id uint32) *Request {
		return &Request{Self: source, Find: func([]byte) *Unit { return destination }, Results: results, Running: &Running{}, ID: id}
	}
	list := &xcopy.List{
		CSCDs:    []xcopy.CSCD{{CodeSet: 1, DesignatorType: 3}},
		Segments: []xcopy.Segment{{ByBlocks: true, Source: xcopy.Self, Destination: 0, Blocks: 8}},
	}
	run := func(ctx context.Context, r *Request) *Failure {
		if failure := m.begin(r, kindExtended, true); failure != nil {
			return failure
		}
		return m.segments(ctx, r, list)
	}
	first := make(chan *Failure, 1)
	go func() { first <- run(t.Context(), request(1)) }()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if failure := run(ctx, request(2)); failure == nil || !errors.Is(failure.Err, context.DeadlineExceeded) {
		t.Errorf("%+v", failure)
	}
	close(goOn)
	if failure := <-first; failure != nil {
		t.Errorf("%+v", failure)
	}
	a.gate = nil
	if failure := run(t.Context(), request(3)); failure != nil {
		t.Errorf("%+v", failure)
	}
	var none *Manager
	if failure := none.begin(request(4), kindWrite, true); failure == nil || failure.Sense.Code != senseInsufficient {
		t.Errorf("without a manager: %+v", failure)
	}
}
