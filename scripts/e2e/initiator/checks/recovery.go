package checks

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Recovery are the checks of error recovery (RFC 7143 section 7), as far as the target negotiates it.
func Recovery() []peer.Check {
	return peer.Suite("error recovery",
		peer.Check{Title: "header digest error", Run: recoverHeader},
		peer.Check{Title: "data digest error in a command", Run: recoverImmediateData},
		peer.Check{Title: "data digest error in Data-Out", Run: recoverDataOut},
		peer.Check{Title: "data digest error in NOP-Out", Run: recoverNOP},
		peer.Check{Title: "SNACK at ErrorRecoveryLevel 0", Run: recoverSNACK},
		peer.Check{Title: "SNACK runs", Run: recoverSNACKRuns},
		peer.Check{Title: "data SNACK", Run: recoverDataSNACK},
		peer.Check{Title: "status SNACK", Run: recoverStatusSNACK},
		peer.Check{Title: "R2T SNACK", Run: recoverR2TSNACK},
	)
}

// level logs in and skips unless the target agrees to an ErrorRecoveryLevel.
func level(g *peer.Target, t peer.T, n int, change ...string) *peer.Peer {
	t.Helper()
	p := g.Session(t, append(change, "ErrorRecoveryLevel="+strconv.Itoa(n))...)
	if got, _ := strconv.Atoi(p.Answer("ErrorRecoveryLevel")); got < n {
		t.Skipf("ErrorRecoveryLevel=%s", p.Answer("ErrorRecoveryLevel"))
	}
	return p
}

func recoverHeader(t peer.T, g *peer.Target) {
	p := g.Session(t, "HeaderDigest=CRC32C")
	p.CorruptHeaderDigest = true
	p.Must("send", p.Request(wire.Command(wire.Final, p.NextITT(), p.LUN, 0, peer.TUR(), nil)))
	r, err := p.Next()
	if !errors.Is(err, wire.ErrHungUp) {
		t.Errorf("opcode %#02x, %v after a header digest error, want the end of the connection", r.Opcode(), err)
	}
	g.Session(t).Leave()
}

func recoverImmediateData(t peer.T, g *peer.Target) {
	p := g.Session(t, "DataDigest=CRC32C")
	bl := p.BlockLen()
	p.Store(0, bl, peer.Pattern(bl, 1))
	p.CorruptDataDigest = true
	p.Must("send", p.Request(wire.Command(wire.Final|wire.Write, p.NextITT(), p.LUN, uint32(bl), peer.RW16(peer.Write16, 0, 1), peer.Pattern(bl, 2))))
	if r := p.Want(wire.OpReject); r.BHS[2] != 2 {
		t.Errorf("reason %#02x, want 2, data digest error", r.BHS[2])
	}
	q := g.Session(t)
	q.Holds(0, bl, peer.Pattern(bl, 1))
	q.Leave()
}

func recoverDataOut(t peer.T, g *peer.Target) {
	p := g.Session(t, "DataDigest=CRC32C", "InitialR2T=Yes", "ImmediateData=No")
	bl := p.BlockLen()
	p.Store(0, bl, peer.Pattern(bl, 1))
	data := peer.Pattern(bl, 2)
	_, err := p.Start(peer.RW16(peer.Write16, 0, 1), 0, data)
	p.Must("write", err)
	r := p.Want(wire.OpR2T)
	p.CorruptDataDigest = true
	p.Must("data", p.AnswerR2T(&r, data))
	if r := p.Want(wire.OpReject); r.BHS[2] != 2 {
		t.Errorf("reason %#02x, want 2, data digest error", r.BHS[2])
	}
	q := g.Session(t)
	q.Holds(0, bl, peer.Pattern(bl, 1))
	q.Leave()
}

func recoverNOP(t peer.T, g *peer.Target) {
	p := g.Session(t, "DataDigest=CRC32C")
	p.CorruptDataDigest = true
	p.Must("send", p.Request(wire.NopOut(p.NextITT(), wire.Reserved, peer.Pattern(100, 1))))
	r, err := p.Next()
	if err == nil && r.Opcode() != wire.OpReject || err != nil && !errors.Is(err, wire.ErrHungUp) {
		t.Errorf("opcode %#02x, %v", r.Opcode(), err)
	}
	g.Session(t).Leave()
}

func recoverSNACK(t peer.T, g *peer.Target) {
	for _, kind := range []byte{wire.SNACKData, wire.SNACKStatus, wire.SNACKDataACK, wire.SNACKRData} {
		p := g.Session(t)
		p.Must("send", p.Request(wire.SNACK(kind, wire.Reserved, wire.Reserved, 0, 1)))
		r, err := p.Next()
		if err == nil && r.Opcode() != wire.OpReject || err != nil && !errors.Is(err, wire.ErrHungUp) {
			t.Errorf("type %d: opcode %#02x, %v, want a Reject", kind, r.Opcode(), err)
		}
		p.Close()
	}
	g.Session(t).Leave()
}

// recoverSNACKRuns asks for what was never sent.
func recoverSNACKRuns(t peer.T, g *peer.Target) {
	for _, run := range [][2]uint32{{0x7fffffff, 1}, {0, 0xffffffff}, {0xffffffff, 0xffffffff}, {1 << 31, 1 << 31}} {
		for _, kind := range []byte{wire.SNACKData, wire.SNACKStatus} {
			p := g.Session(t, "ErrorRecoveryLevel=2")
			p.Must("send", p.Request(wire.SNACK(kind, wire.Reserved, wire.Reserved, run[0], run[1])))
			for {
				r, err := p.NextWithin(peer.QuietTime)
				if err != nil {
					break
				}
				if r.Opcode() == wire.OpDataIn || r.Opcode() == wire.OpR2T {
					t.Fatalf("opcode %#02x for a run from %#x", r.Opcode(), run[0])
				}
			}
			p.Close()
		}
	}
	g.Session(t).Leave()
}

// recoverDataSNACK asks for a Data-In again whose status it has not acknowledged.
func recoverDataSNACK(t peer.T, g *peer.Target) {
	p := level(g, t, 1, "MaxRecvDataSegmentLength=4096")
	bl := p.BlockLen()
	acked := p.ExpStatSN
	itt, err := p.Start(peer.RW16(peer.Read16, 0, uint32(16384/bl)), 16384, nil)
	p.Must("read", err)
	var got []wire.PDU
	for {
		d, err := p.Next()
		p.Must("read", err)
		if got = append(got, d); d.Opcode() == wire.OpResponse || d.Flags()&wire.HasStatus != 0 {
			break
		}
	}
	s := wire.SNACK(wire.SNACKData, itt, wire.Reserved, 1, 2)
	s.Put32(28, acked)
	p.Must("send", p.Send(s))
	for i := range 2 {
		d := p.Want(wire.OpDataIn)
		if d.U32(36) != uint32(i+1) || !bytes.Equal(d.Data, got[i+1].Data) {
			t.Errorf("DataSN %d and %d bytes, want DataSN %d as it was", d.U32(36), len(d.Data), i+1)
		}
	}
	p.MustReady()
	p.Leave()
}

func recoverStatusSNACK(t peer.T, g *peer.Target) {
	p := level(g, t, 1)
	acked := p.ExpStatSN
	p.Must("send", p.Request(wire.Command(wire.Final, p.NextITT(), p.LUN, 0, peer.TUR(), nil)))
	first := p.Want(wire.OpResponse)
	s := wire.SNACK(wire.SNACKStatus, wire.Reserved, wire.Reserved, first.StatSN(), 1)
	s.Put32(28, acked)
	p.Must("send", p.Send(s))
	again := p.Want(wire.OpResponse)
	if again.StatSN() != first.StatSN() || again.ITT() != first.ITT() || again.BHS[3] != first.BHS[3] {
		t.Errorf("StatSN %d and tag %#x, want the response as it was", again.StatSN(), again.ITT())
	}
	p.MustReady()
	p.Leave()
}

func recoverR2TSNACK(t peer.T, g *peer.Target) {
	p := level(g, t, 1, "InitialR2T=Yes", "ImmediateData=No")
	r2t, _, data := p.Waiting()
	p.Must("send", p.Request(wire.SNACK(wire.SNACKData, r2t.ITT(), wire.Reserved, r2t.U32(36), 1)))
	again := p.Want(wire.OpR2T)
	if again.U32(36) != r2t.U32(36) || again.U32(40) != r2t.U32(40) || again.U32(44) != r2t.U32(44) {
		t.Errorf("R2TSN %d, want the R2T as it was", again.U32(36))
	}
	p.Must("data", p.AnswerR2T(&again, data))
	p.Want(wire.OpResponse)
	p.Leave()
}
