package checks

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Data are the checks of the full feature phase about data (RFC 7143 sections 11.7, 11.8 and 4.2.4).
func Data() []peer.Check {
	return peer.Suite("data",
		peer.Check{Title: "sizes in both directions", Run: dataSizes},
		peer.Check{Title: "DataSN and R2TSN", Run: dataNumbers},
		peer.Check{Title: "ExpDataSN", Run: dataExpDataSN},
		peer.Check{Title: "Data-In status, F and A bit", Run: dataIn},
		peer.Check{Title: "residual counts", Run: dataResidual},
		peer.Check{Title: "unsolicited data", Run: dataUnsolicited},
		peer.Check{Title: "immediate data that was not negotiated", Run: dataImmediateNo},
		peer.Check{Title: "immediate data beyond FirstBurstLength", Run: dataImmediateLong},
		peer.Check{Title: "immediate data beyond the transfer", Run: dataImmediateBeyond},
		peer.Check{Title: "unsolicited data that was not negotiated", Run: dataUnsolicitedNo},
		peer.Check{Title: "unsolicited data beyond FirstBurstLength", Run: dataUnsolicitedLong},
		peer.Check{Title: "solicited data", Run: dataSolicited},
		peer.Check{Title: "target transfer tag", Run: dataTTT},
		peer.Check{Title: "F bit missing", Run: dataNoFinal},
		peer.Check{Title: "F bit too early", Run: dataEarlyFinal},
		peer.Check{Title: "buffer offset out of order", Run: dataOrder},
		peer.Check{Title: "buffer offset beyond the sequence", Run: dataBeyond},
		peer.Check{Title: "DataSN out of order", Run: dataDataSN},
		peer.Check{Title: "DataSegmentLength beyond what the target takes", Run: dataTooLong},
		peer.Check{Title: "Data-Out for no task", Run: dataNoTask},
		peer.Check{Title: "parallel commands", Run: dataParallel},
		peer.Check{Title: "order of data of two writes", Run: dataInterleaved},
	)
}

func dataSizes(t peer.T, g *peer.Target) {
	for _, c := range [][]string{nil, {"InitialR2T=Yes"}, {"ImmediateData=No"}, {"InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=4096", "FirstBurstLength=4096"}} {
		p := g.Session(t, c...)
		bl := p.BlockLen()
		for i, n := range []int{1, 2, 7, 128, 129, 513, 2048} {
			data := peer.Pattern(n*bl, byte(i))
			p.Store(uint64(i)*4096, bl, data)
			p.Holds(uint64(i)*4096, bl, data)
		}
		p.Leave()
	}
}

func dataNumbers(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=8192", "MaxRecvDataSegmentLength=4096")
	bl := p.BlockLen()
	data := peer.Pattern(65536, 3)
	itt, err := p.Start(peer.RW16(peer.Write16, 0, uint32(len(data)/bl)), 0, data)
	p.Must("write", err)
	at := 0
	for sn := uint32(0); at < len(data); sn++ {
		r := p.Want(wire.OpR2T)
		if r.U32(36) != sn || int(r.U32(40)) != at || r.U32(44) == 0 || r.U32(44) > 8192 || r.TTT() == wire.Reserved {
			t.Fatalf("R2TSN %d, offset %d, length %d, TTT %#x; want R2TSN %d, offset %d", r.U32(36), r.U32(40), r.U32(44), r.TTT(), sn, at)
		}
		if r.StatSN() != p.ExpStatSN {
			t.Errorf("StatSN %d in an R2T, the next one is %d", r.StatSN(), p.ExpStatSN)
		}
		at += int(r.U32(44))
		p.Must("data", p.AnswerR2T(&r, data))
	}
	if r := p.Want(wire.OpResponse); r.BHS[3] != wire.Good || r.ITT() != itt {
		t.Fatalf("status %#02x", r.BHS[3])
	}
	itt, err = p.Start(peer.RW16(peer.Read16, 0, uint32(len(data)/bl)), len(data), nil)
	p.Must("read", err)
	for sn, got := uint32(0), 0; got < len(data); sn++ {
		d := p.Want(wire.OpDataIn)
		if d.U32(36) != sn || int(d.U32(40)) != got || d.ITT() != itt {
			t.Fatalf("DataSN %d, offset %d, want %d and %d", d.U32(36), d.U32(40), sn, got)
		}
		got += len(d.Data)
		if (got == len(data)) != (d.Flags()&wire.HasStatus != 0) {
			t.Skipf("the status comes in a response of its own")
		}
	}
	p.Leave()
}

func dataExpDataSN(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=4096", "FirstBurstLength=4096")
	bl := p.BlockLen()
	data := peer.Pattern(4*4096, 3)
	itt, err := p.Start(peer.RW16(peer.Write16, 0, uint32(len(data)/bl)), 0, data)
	p.Must("write", err)
	n := uint32(0)
	for {
		r, err := p.Next()
		p.Must("write", err)
		if r.Opcode() != wire.OpR2T {
			if r.Opcode() != wire.OpResponse || r.ITT() != itt || r.U32(36) != n {
				t.Errorf("opcode %#02x, ExpDataSN %d after %d R2Ts", r.Opcode(), r.U32(36), n)
			}
			break
		}
		n++
		p.Must("data", p.AnswerR2T(&r, data))
	}
	p.Leave()
}

func dataIn(t peer.T, g *peer.Target) {
	p := g.Session(t, "MaxBurstLength=8192", "FirstBurstLength=4096", "MaxRecvDataSegmentLength=4096", "ErrorRecoveryLevel=0")
	bl := p.BlockLen()
	itt, err := p.Start(peer.RW16(peer.Read16, 0, uint32(32768/bl)), 32768, nil)
	p.Must("read", err)
	burst := 0
	for {
		d := p.Want(wire.OpDataIn)
		if d.ITT() != itt {
			t.Fatalf("tag %#x", d.ITT())
		}
		f := d.Flags()
		if f&wire.Ack != 0 {
			t.Errorf("A bit at ErrorRecoveryLevel 0")
		}
		if burst += len(d.Data); burst > 8192 {
			t.Errorf("a sequence of %d bytes, MaxBurstLength is 8192", burst)
		}
		if f&wire.Final != 0 {
			burst = 0
		}
		if f&wire.HasStatus != 0 {
			if f&wire.Final == 0 {
				t.Errorf("S without F")
			}
			if d.BHS[3] != wire.Good {
				t.Errorf("status %#02x in a Data-In", d.BHS[3])
			}
			break
		}
		if f&(wire.Overflow|wire.Underflow) != 0 || d.U32(44) != 0 {
			t.Errorf("a residual count without status")
		}
	}
	p.Leave()
}

func dataResidual(t peer.T, g *peer.Target) {
	p := g.Session(t)
	bl := p.BlockLen()
	p.Store(0, bl, peer.Pattern(8*bl, 5))
	for _, c := range []struct {
		what          string
		cdb           []byte
		in, out, want int
		good          bool
	}{
		{"read, more expected", peer.RW16(peer.Read16, 0, 1), 2 * bl, 0, bl, true},
		{"read, less expected", peer.RW16(peer.Read16, 0, 2), bl, 0, -bl, true},
		{"read, nothing expected", peer.RW16(peer.Read16, 0, 1), 0, 0, -bl, true},
		{"INQUIRY, more expected", []byte{peer.Inquiry, 0, 0, 0, 36, 0}, 255, 0, 219, true},
		{"TEST UNIT READY, data expected", peer.TUR(), 512, 0, 512, true},
		{"write, more expected", peer.RW16(peer.Write16, 8, 1), 0, 2 * bl, bl, false},
		{"write, less expected", peer.RW16(peer.Write16, 8, 2), 0, bl, -bl, false},
		{"unknown command, data expected", make([]byte, 16), 512, 0, 512, false},
	} {
		if c.what == "unknown command, data expected" {
			c.cdb[0] = 0xff
		}
		var out []byte
		if c.out > 0 {
			out = peer.Pattern(c.out, 9)
		}
		r := p.MustDo(c.cdb, c.in, out)
		if r.Residual != c.want && (c.good || r.Status == wire.Good) {
			t.Errorf("%s: residual %d, want %d (status %#02x)", c.what, r.Residual, c.want, r.Status)
		}
		if c.good && r.Status != wire.Good {
			t.Errorf("%s: %v", c.what, r.Err())
		}
		if len(r.Data) > c.in {
			t.Errorf("%s: %d bytes came, %d were expected", c.what, len(r.Data), c.in)
		}
	}
	p.Leave()
}

func dataUnsolicited(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=65536")
	if p.InitialR2T {
		t.Skipf("the target wants InitialR2T")
	}
	bl := p.BlockLen()
	data := peer.Pattern(p.FirstBurst, 1)
	blocks := uint32(len(data) / bl)
	half := p.FirstBurst / 2
	itt := p.NextITT()
	p.Must("send", p.Request(
		wire.Command(wire.Write, itt, p.LUN, uint32(len(data)), peer.RW16(peer.Write16, 0, blocks), data[:half]),
		wire.DataOut(0, itt, wire.Reserved, p.LUN, 0, uint32(half), data[half:half+bl]),
		wire.DataOut(wire.Final, itt, wire.Reserved, p.LUN, 1, uint32(half+bl), data[half+bl:]),
	))
	if r, err := p.Finish(itt, data); err != nil || r.Err() != nil {
		t.Fatalf("%v, %v", err, r.Err())
	}
	p.Holds(0, bl, data)
	// Fewer unsolicited data than allowed: the rest is asked for.
	itt = p.NextITT()
	data = peer.Pattern(len(data), 2)
	p.Must("send", p.Request(
		wire.Command(wire.Write, itt, p.LUN, uint32(len(data)), peer.RW16(peer.Write16, 0, blocks), nil),
		wire.DataOut(wire.Final, itt, wire.Reserved, p.LUN, 0, 0, data[:bl]),
	))
	if r, err := p.Finish(itt, data); err != nil || r.Err() != nil {
		t.Fatalf("%v, %v", err, r.Err())
	}
	p.Holds(0, bl, data)
	p.Leave()
}

// wrong sends PDUs for a write to the block behind one that must not change, and wants a violation.
func wrong(g *peer.Target, t peer.T, p *peer.Peer, what string, ps ...wire.PDU) {
	t.Helper()
	t.Logf("%s", what)
	p.Must("send", p.Request(ps...))
	p.Violation()
}

func dataImmediateNo(t peer.T, g *peer.Target) {
	p := g.Session(t, "ImmediateData=No")
	bl := p.BlockLen()
	wrong(g, t, p, "immediate data", wire.Command(wire.Final|wire.Write, p.NextITT(), p.LUN, uint32(bl), peer.RW16(peer.Write16, 0, 1), peer.Pattern(bl, 1)))
}

func dataImmediateLong(t peer.T, g *peer.Target) {
	p := g.Session(t, "FirstBurstLength=512", "MaxBurstLength=4096")
	bl := p.BlockLen()
	n := 2 * max(bl, p.FirstBurst)
	wrong(g, t, p, fmt.Sprintf("%d bytes, FirstBurstLength is %d", n, p.FirstBurst),
		wire.Command(wire.Final|wire.Write, p.NextITT(), p.LUN, uint32(n), peer.RW16(peer.Write16, 0, uint32(n/bl)), peer.Pattern(n, 1)))
}

func dataImmediateBeyond(t peer.T, g *peer.Target) {
	p := g.Session(t)
	bl := p.BlockLen()
	p.Store(0, bl, peer.Pattern(2*bl, 1))
	wrong(g, t, p, "two blocks where one is expected",
		wire.Command(wire.Final|wire.Write, p.NextITT(), p.LUN, uint32(bl), peer.RW16(peer.Write16, 0, 1), peer.Pattern(2*bl, 2)))
	q := g.Session(t)
	q.Holds(1, bl, peer.Pattern(2*bl, 1)[bl:])
	q.Leave()
}

func dataUnsolicitedNo(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=Yes")
	bl := p.BlockLen()
	itt := p.NextITT()
	wrong(g, t, p, "unsolicited data",
		wire.Command(wire.Write, itt, p.LUN, uint32(2*bl), peer.RW16(peer.Write16, 0, 2), nil),
		wire.DataOut(wire.Final, itt, wire.Reserved, p.LUN, 0, 0, peer.Pattern(2*bl, 1)))
}

func dataUnsolicitedLong(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=No", "ImmediateData=No", "FirstBurstLength=4096")
	if p.InitialR2T {
		t.Skipf("the target wants InitialR2T")
	}
	bl := p.BlockLen()
	n := max(2*bl, 2*p.FirstBurst)
	itt := p.NextITT()
	wrong(g, t, p, fmt.Sprintf("%d bytes, FirstBurstLength is %d", n, p.FirstBurst),
		wire.Command(wire.Write, itt, p.LUN, uint32(n), peer.RW16(peer.Write16, 0, uint32(n/bl)), nil),
		wire.DataOut(wire.Final, itt, wire.Reserved, p.LUN, 0, 0, peer.Pattern(n, 1)))
}

func dataSolicited(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=Yes", "MaxBurstLength=16384", "FirstBurstLength=4096")
	bl := p.BlockLen()
	data := peer.Pattern(100*bl, 1)
	itt := p.NextITT()
	p.Must("send", p.Request(wire.Command(wire.Final|wire.Write, itt, p.LUN, uint32(len(data)), peer.RW16(peer.Write16, 0, 100), data[:bl])))
	at := bl
	for at < len(data) {
		r := p.Want(wire.OpR2T)
		off, n := int(r.U32(40)), int(r.U32(44))
		if off != at || n > 16384 || off+n > len(data) {
			t.Fatalf("R2T for %d bytes at %d, %d came", n, off, at)
		}
		for sn := uint32(0); n > 0; sn++ { // one block at a time
			k, f := min(n, bl), byte(0)
			if k == n {
				f = wire.Final
			}
			p.Must("data", p.Request(wire.DataOut(f, itt, r.TTT(), p.LUN, sn, uint32(off), data[off:off+k])))
			off, n = off+k, n-k
		}
		at = off
	}
	if r := p.Want(wire.OpResponse); r.BHS[3] != wire.Good {
		t.Fatalf("status %#02x", r.BHS[3])
	}
	p.Holds(0, bl, data)
	p.Leave()
}

// asked begins a write of two blocks and returns the R2T for all of it.
func asked(g *peer.Target, t peer.T) (p *peer.Peer, r2t wire.PDU, bl int) {
	t.Helper()
	p = g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	bl = p.BlockLen()
	p.Store(100, bl, peer.Pattern(8*bl, 50))
	_, err := p.Start(peer.RW16(peer.Write16, 100, 2), 0, peer.Pattern(2*bl, 51))
	p.Must("write", err)
	r2t = p.Want(wire.OpR2T)
	if int(r2t.U32(44)) != 2*bl {
		t.Skipf("the target asks for %d of %d bytes", r2t.U32(44), 2*bl)
	}
	return p, r2t, bl
}

// untouched wants the blocks behind the write of asked to be as they were.
func untouched(g *peer.Target, t peer.T, bl int) {
	t.Helper()
	q := g.Session(t)
	q.Holds(102, bl, peer.Pattern(8*bl, 50)[2*bl:])
	q.Leave()
}

// out is a Data-Out of the write of asked.
func out(p *peer.Peer, r2t *wire.PDU, flags byte, sn, offset uint32, n int) wire.PDU {
	return wire.DataOut(flags, r2t.ITT(), r2t.TTT(), p.LUN, sn, offset, peer.Pattern(n, 52))
}

func dataTTT(t peer.T, g *peer.Target) {
	for _, ttt := range []uint32{wire.Reserved, 0x77777777} {
		p, r2t, bl := asked(g, t)
		d := out(p, &r2t, wire.Final, 0, 0, 2*bl)
		d.Put32(20, ttt)
		wrong(g, t, p, fmt.Sprintf("TTT %#x, the target gave %#x", ttt, r2t.TTT()), d)
		untouched(g, t, bl)
	}
}

func dataNoFinal(t peer.T, g *peer.Target) {
	p, r2t, bl := asked(g, t)
	// All data, but no F; a target may also wait for more, which then is beyond the sequence.
	p.Must("send", p.Request(out(p, &r2t, 0, 0, 0, 2*bl)))
	r, err := p.NextWithin(peer.QuietTime)
	switch {
	case errors.Is(err, wire.ErrQuiet):
		wrong(g, t, p, "more than asked for", out(p, &r2t, wire.Final, 1, uint32(2*bl), bl))
	case err == nil && r.Opcode() == wire.OpResponse && r.BHS[3] == wire.Good:
		t.Errorf("GOOD although the sequence did not end with F")
	}
	untouched(g, t, bl)
}

func dataEarlyFinal(t peer.T, g *peer.Target) {
	p, r2t, bl := asked(g, t)
	p.Must("send", p.Request(out(p, &r2t, wire.Final, 0, 0, bl)))
	r, err := p.Next()
	if err == nil && r.Opcode() == wire.OpR2T { // the rest is asked for again
		if int(r.U32(40)) != bl || int(r.U32(44)) != bl {
			t.Errorf("R2T for %d bytes at %d", r.U32(44), r.U32(40))
		}
		return
	}
	if err == nil && r.Opcode() == wire.OpResponse && r.BHS[3] == wire.Good {
		t.Errorf("GOOD although half of the data is missing")
	}
	untouched(g, t, bl)
}

func dataOrder(t peer.T, g *peer.Target) {
	p, r2t, bl := asked(g, t)
	wrong(g, t, p, "second half first, DataPDUInOrder is Yes",
		out(p, &r2t, 0, 0, uint32(bl), bl), out(p, &r2t, wire.Final, 1, 0, bl))
	untouched(g, t, bl)
}

func dataBeyond(t peer.T, g *peer.Target) {
	for _, c := range []struct {
		offset uint32
		blocks int
	}{{0, 3}, {1 << 20, 1}, {0xfffffe00, 1}, {0xffffffff, 2}} {
		p, r2t, bl := asked(g, t)
		wrong(g, t, p, fmt.Sprintf("%d blocks at offset %#x of two blocks", c.blocks, c.offset),
			out(p, &r2t, wire.Final, 0, c.offset, c.blocks*bl))
		untouched(g, t, bl)
	}
}

func dataDataSN(t peer.T, g *peer.Target) {
	p, r2t, bl := asked(g, t)
	wrong(g, t, p, "DataSN 0, 2", out(p, &r2t, 0, 0, 0, bl), out(p, &r2t, wire.Final, 2, uint32(bl), bl))
	untouched(g, t, bl)
}

func dataTooLong(t peer.T, g *peer.Target) {
	p := g.Session(t)
	n := p.MaxSend + 4
	if n > 1<<24-4 {
		t.Skipf("the target takes everything")
	}
	wrong(g, t, p, fmt.Sprintf("NOP-Out of %d bytes, the target takes %d", n, p.MaxSend),
		wire.NopOut(p.NextITT(), wire.Reserved, make([]byte, n)))
}

// dataNoTask sends data for a command that is not there: it may be dropped, rejected, or end the connection.
func dataNoTask(t peer.T, g *peer.Target) {
	p := g.Session(t)
	p.Must("send", p.Request(wire.DataOut(wire.Final, 0x4242, 0x4242, p.LUN, 0, 0, peer.Pattern(512, 1))))
	r, err := p.NextWithin(peer.QuietTime)
	switch {
	case err == nil && r.Opcode() != wire.OpReject:
		t.Errorf("opcode %#02x", r.Opcode())
	case errors.Is(err, wire.ErrQuiet):
		p.MustReady()
	}
	g.Session(t).Leave()
}

// dataParallel has reads and writes in flight together and gathers what comes for each of them.
func dataParallel(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	bl := p.BlockLen()
	n := min(24, int(p.MaxCmdSN-p.CmdSN+1)) / 2
	out, in := map[uint32][]byte{}, map[uint32][]byte{}
	for i := range n {
		p.Store(uint64(i)*64, bl, peer.Pattern(64*bl, byte(i)))
	}
	for i := range n {
		data := peer.Pattern(64*bl, byte(100+i))
		itt, err := p.Start(peer.RW16(peer.Write16, 8192+uint64(i)*64, 64), 0, data)
		p.Must("write", err)
		out[itt] = data
		itt, err = p.Start(peer.RW16(peer.Read16, uint64(i)*64, 64), 64*bl, nil)
		p.Must("read", err)
		in[itt] = nil
	}
	for open := 2 * n; open > 0; {
		r, err := p.Next()
		p.Must("parallel commands", err)
		switch r.Opcode() {
		case wire.OpR2T:
			p.Must("data", p.AnswerR2T(&r, out[r.ITT()]))
		case wire.OpDataIn:
			in[r.ITT()] = append(in[r.ITT()], r.Data...)
			if r.Flags()&wire.HasStatus != 0 {
				open--
			}
		case wire.OpResponse:
			open--
			if r.BHS[3] != wire.Good {
				t.Errorf("status %#02x", r.BHS[3])
			}
		default:
			t.Fatalf("opcode %#02x", r.Opcode())
		}
	}
	for i := range n {
		p.Holds(8192+uint64(i)*64, bl, peer.Pattern(64*bl, byte(100+i)))
	}
	found := 0
	for _, data := range in {
		for i := range n {
			if bytes.Equal(data, peer.Pattern(64*bl, byte(i))) {
				found++
			}
		}
	}
	if found != n {
		t.Errorf("%d of %d reads brought what was written", found, n)
	}
	p.Leave()
}

// dataInterleaved sends the data of two writes in turns.
func dataInterleaved(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	bl := p.BlockLen()
	a, b := peer.Pattern(4*bl, 1), peer.Pattern(4*bl, 2)
	_, err := p.Start(peer.RW16(peer.Write16, 0, 4), 0, a)
	p.Must("write", err)
	_, err = p.Start(peer.RW16(peer.Write16, 4, 4), 0, b)
	p.Must("write", err)
	ra, rb := p.Want(wire.OpR2T), p.Want(wire.OpR2T)
	if int(ra.U32(44)) != len(a) || int(rb.U32(44)) != len(b) {
		t.Skipf("the target asks for parts")
	}
	for sn := range uint32(4) {
		at, f := int(sn)*bl, byte(0)
		if sn == 3 {
			f = wire.Final
		}
		p.Must("data", p.Request(
			wire.DataOut(f, rb.ITT(), rb.TTT(), p.LUN, sn, uint32(at), b[at:at+bl]),
			wire.DataOut(f, ra.ITT(), ra.TTT(), p.LUN, sn, uint32(at), a[at:at+bl])))
	}
	for range 2 {
		if r := p.Want(wire.OpResponse); r.BHS[3] != wire.Good {
			t.Errorf("status %#02x", r.BHS[3])
		}
	}
	p.Holds(0, bl, append(append([]byte(nil), a...), b...))
	p.Leave()
}
