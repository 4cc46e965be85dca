package hostile

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

func hostileCommands() []peer.Check {
	return peer.Suite("hostile commands",
		peer.Check{Title: "EXTENDED COPY from another's logical unit", Run: hostileCopy},
		peer.Check{Title: "WRITE USING TOKEN with a token of nobody", Run: hostileToken},
		peer.Check{Title: "PERSISTENT RESERVE OUT with TransportIDs that are too long", Run: hostileTransportID},
		peer.Check{Title: "PERSISTENT RESERVE OUT with every length", Run: hostileReserveLength},
		peer.Check{Title: "text output of many connections", Run: hostileTextOutput},
		peer.Check{Title: "no memory of others in lists", Run: hostileUninitialised},
		peer.Check{Title: "WRITE BUFFER and READ BUFFER", Run: hostileBuffer},
		peer.Check{Title: "every operation code with no data", Run: hostileOpcodes},
	)
}

// copyList is the parameter list of an EXTENDED COPY (LID1) of one block, from one logical unit to another, both named
// by NAA designators (SPC-4 6.4: CSCD descriptor type E4h, segment descriptor type 02h).
func copyList(from, to []byte, bl int) []byte {
	cscd := func(naa []byte) []byte {
		d := make([]byte, 32)
		d[0] = 0xe4
		d[4], d[5], d[7] = 1, 3, 16
		copy(d[8:24], naa)
		d[29], d[30], d[31] = byte(bl>>16), byte(bl>>8), byte(bl)
		return d
	}
	seg := make([]byte, 28)
	seg[0], seg[3] = 0x02, 0x18
	seg[7] = 1  // destination CSCD
	seg[11] = 1 // blocks
	head := make([]byte, 16)
	head[0] = 1
	binary.BigEndian.PutUint16(head[2:], 64)
	binary.BigEndian.PutUint32(head[8:], uint32(len(seg)))
	return slices.Concat(head, cscd(from), cscd(to), seg)
}

// naa returns the NAA designator of the logical unit (VPD page 83h), nil if it has none.
func naa(p *peer.Peer) []byte {
	p.Helper()
	r := p.Good([]byte{peer.Inquiry, 1, 0x83, 1, 0, 0}, 256, nil)
	for d := r.Data[min(4, len(r.Data)):]; len(d) >= 4 && len(d) >= 4+int(d[3]); d = d[4+int(d[3]):] {
		if d[1]&0x3f == 3 && d[3] == 16 {
			return bytes.Clone(d[4:20])
		}
	}
	return nil
}

// hostileCopy names, as the source of a copy, a logical unit that does not exist and one that others have: both must be
// refused, in the same words.
func hostileCopy(t peer.T, g *peer.Target) {
	p := g.Session(t)
	bl := p.BlockLen()
	own := naa(p)
	if own == nil {
		t.Skipf("no NAA designator")
	}
	p.Store(0, bl, peer.Pattern(bl, 77))
	nobody := bytes.Clone(own)
	nobody[15] ^= 0x5a
	names := [][]byte{nobody}
	if g.Foreign != nil {
		names = append(names, g.Foreign)
	}
	var words []wire.Sense
	for _, other := range names {
		for _, l := range [][]byte{copyList(other, own, bl), copyList(own, other, bl)} {
			cdb := make([]byte, 16)
			cdb[0] = 0x83
			binary.BigEndian.PutUint32(cdb[10:], uint32(len(l)))
			r := p.MustDo(cdb, 0, l)
			if r.Status == wire.Good {
				t.Errorf("a copy from or to % x is GOOD", other)
			}
			words = append(words, r.Sense)
		}
	}
	for _, w := range words {
		if w != words[0] && w != words[1] {
			t.Errorf("sense %v for a logical unit that others have, %v and %v for one that nobody has", w, words[0], words[1])
		}
	}
	p.Holds(0, bl, peer.Pattern(bl, 77))
	p.Leave()
}

func hostileToken(t peer.T, g *peer.Target) {
	p := g.Session(t)
	bl := p.BlockLen()
	p.Store(0, bl, peer.Pattern(bl, 78))
	for _, fill := range []byte{1, 0x5a, 0xff} {
		l := make([]byte, 536+16)
		binary.BigEndian.PutUint16(l, uint16(len(l)-2))
		copy(l[16:528], bytes.Repeat([]byte{fill}, 512))
		binary.BigEndian.PutUint16(l[534:], 16)
		l[536+11] = 1
		cdb := make([]byte, 16)
		cdb[0], cdb[1] = 0x83, 0x11
		binary.BigEndian.PutUint32(cdb[6:], 0x1234)
		binary.BigEndian.PutUint32(cdb[10:], uint32(len(l)))
		if r := p.MustDo(cdb, 0, l); r.Status == wire.Good {
			t.Errorf("a token of %#02x bytes is GOOD", fill)
		}
	}
	p.Holds(0, bl, peer.Pattern(bl, 78))
	p.Leave()
}

// reserveOut is PERSISTENT RESERVE OUT.
func reserveOut(p *peer.Peer, action byte, list []byte, length int) wire.Result {
	p.Helper()
	cdb := make([]byte, 10)
	cdb[0], cdb[1], cdb[2] = 0x5f, action, 0x05
	binary.BigEndian.PutUint32(cdb[5:], uint32(length))
	return p.MustDo(cdb, 0, list)
}

// hostileTransportID registers with SPEC_I_PT and a list of TransportIDs whose lengths lie (SPC-4 6.14.3).
func hostileTransportID(t peer.T, g *peer.Target) {
	p := g.Session(t)
	name := append([]byte("iqn.2026-11.dev.ashlar:x"), 0)
	id := func(format byte, length int, text []byte) []byte {
		return append([]byte{format<<6 | 5, 0, byte(length >> 8), byte(length)}, text...)
	}
	for _, c := range []struct {
		what string
		list int // TRANSPORTID PARAMETER DATA LENGTH
		ids  []byte
	}{
		{"the list says more than there is", 0xffff, id(0, 24, name[:24])},
		{"the list says 4 GiB", 0xffffffff, id(0, 24, name[:24])},
		{"a TransportID says more than the list", 28, id(0, 0xffff, name[:24])},
		{"a TransportID of no length", 4, id(0, 0, nil)},
		{"a TransportID cut off", 3, []byte{5, 0, 0}},
		{"a name without end", 28, id(0, 24, bytes.Repeat([]byte{'a'}, 24))},
		{"a name of 64 KiB", 65000, id(0, 64996, bytes.Repeat([]byte{'a'}, 64996))},
		{"a session identifier without a separator", 28, id(1, 24, append(bytes.Repeat([]byte{'a'}, 23), 0))},
		{"another protocol", 24, append([]byte{0x06}, make([]byte, 23)...)},
	} {
		l := make([]byte, 28, 28+len(c.ids))
		l[15] = 1 // service action reservation key
		l[20] = 0x08
		binary.BigEndian.PutUint32(l[24:], uint32(c.list))
		l = append(l, c.ids...)
		if r := reserveOut(p, 0, l, len(l)); r.Status == wire.Good {
			t.Errorf("%s: GOOD", c.what)
		}
		p.MustReady()
	}
	p.Leave()
}

func hostileReserveLength(t peer.T, g *peer.Target) {
	p := g.Session(t)
	for action := range byte(9) {
		for n := 1; n < 28; n++ {
			if n == 24 {
				continue
			}
			if r := reserveOut(p, action, make([]byte, n), n); r.Status == wire.Good {
				t.Errorf("service action %d with a list of %d bytes is GOOD", action, n)
			}
		}
		if r := reserveOut(p, action, make([]byte, 24), 0xffff); r.Status == wire.Good {
			t.Errorf("service action %d with a list shorter than the CDB says is GOOD", action)
		}
	}
	p.MustReady()
	p.Leave()
}

// hostileTextOutput has many connections ask for all targets at once, in small pieces.
func hostileTextOutput(t peer.T, g *peer.Target) {
	var wg sync.WaitGroup
	for range 24 {
		p := g.Dial(t)
		p.Must("discovery", p.Login(wire.Login{Initiator: g.Initiator, ISID: p.ISID, Keys: []string{"MaxRecvDataSegmentLength=512"}}))
		wg.Go(func() {
			for range 20 {
				if err := p.Request(wire.Text(wire.Final, p.NextITT(), wire.Reserved, wire.Keys("SendTargets=All"))); err != nil {
					t.Errorf("SendTargets: %v", err)
					return
				}
				for {
					r, err := p.Next()
					if err != nil || r.Opcode() != wire.OpTextRsp || len(r.Data) > 512 {
						t.Errorf("opcode %#02x, %d bytes, %v", r.Opcode(), len(r.Data), err)
						return
					}
					if r.Flags()&wire.Final != 0 {
						break
					}
					if err := p.Request(wire.Text(wire.Final, r.ITT(), r.TTT(), nil)); err != nil {
						t.Errorf("SendTargets: %v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// hostileUninitialised fills the target's buffers with a mark and looks for it in all lists.
func hostileUninitialised(t peer.T, g *peer.Target) {
	p := g.Session(t)
	bl := p.BlockLen()
	mark := []byte("\xde\xc0\xad\x0b\xde\xc0\xad\x0b")
	data := bytes.Repeat(mark, 256*bl/len(mark))
	for i := range 8 {
		p.Store(uint64(i)*256, bl, data)
		p.Holds(uint64(i)*256, bl, data)
	}
	for _, c := range lists() {
		r := p.MustDo(c.cdb(65535), 65535, nil)
		if bytes.Contains(r.Data, mark) || bytes.Contains(r.Response.Data, mark) {
			t.Errorf("%s: data of a write is in the answer", c.name)
		}
		again := p.MustDo(c.cdb(65535), 65535, nil)
		if r.Status == again.Status && len(r.Data) != len(again.Data) {
			t.Errorf("%s: %d bytes, and then %d", c.name, len(r.Data), len(again.Data))
		}
	}
	r := p.MustDo(peer.RW16(peer.Read16, 1<<62, 16), 16*bl, nil) // fails; its data must not be those of others
	if r.Status == wire.Good || len(r.Data) != 0 {
		t.Errorf("a read beyond the end: status %#02x, %d bytes", r.Status, len(r.Data))
	}
	p.Store(0, bl, make([]byte, 256*bl))
	p.Leave()
}

// hostileBuffer writes and reads buffers, with offsets at their ends, while others abort.
func hostileBuffer(t peer.T, g *peer.Target) {
	p := g.Session(t)
	for mode := range byte(0x20) {
		for _, off := range [][3]byte{{0, 0, 0}, {0xff, 0xff, 0xff}} {
			for _, op := range []byte{0x3b, 0x3c} {
				cdb := []byte{op, mode, 0, off[0], off[1], off[2], 0, 2, 0, 0}
				var out []byte
				in := 0
				if op == 0x3b {
					out = peer.Pattern(512, mode)
				} else {
					in = 512
				}
				r := p.MustDo(cdb, in, out)
				if len(r.Data) > 512 {
					t.Errorf("READ BUFFER of %d bytes", len(r.Data))
				}
			}
		}
	}
	p.MustReady()
	p.Leave()
}

// hostileOpcodes sends every operation code that transfers nothing, with zeroes and with ones in the rest of the CDB. It
// leaves out those whose success would take the unit away from the checks after it.
func hostileOpcodes(t peer.T, g *peer.Target) {
	p := g.Session(t)
	for op := range 256 {
		switch op {
		case 0x04, 0x16, 0x17, 0x1b, 0x1e, 0x48, 0x56, 0x57, 0x5f: // FORMAT, RESERVE, RELEASE, START STOP, PREVENT, SANITIZE, PR OUT
			continue
		}
		for _, fill := range []byte{0, 0xff} {
			cdb := bytes.Repeat([]byte{fill}, 16)
			cdb[0] = byte(op)
			if _, err := p.Do(cdb, 0, nil); err != nil {
				t.Fatalf("operation code %#02x, filled with %#02x: %v", op, fill, err)
			}
		}
	}
	p.MustReady()
	p.Leave()
}
