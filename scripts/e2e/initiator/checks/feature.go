package checks

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Feature are the checks of the full feature phase that are not about data.
func Feature() []peer.Check {
	return peer.Suite("full feature",
		peer.Check{Title: "CmdSN order", Run: featureOrder},
		peer.Check{Title: "CmdSN wraps", Run: featureWrap},
		peer.Check{Title: "immediate delivery", Run: featureImmediate},
		peer.Check{Title: "closed window", Run: featureClosedWindow},
		peer.Check{Title: "large window", Run: featureLargeWindow},
		peer.Check{Title: "single window", Run: featureSingleWindow},
		peer.Check{Title: "window never shrinks", Run: featureWindowGrows},
		peer.Check{Title: "retry of a command", Run: featureRetry},
		peer.Check{Title: "StatSN and ExpStatSN", Run: featureStatSN},
		peer.Check{Title: "NOP", Run: featureNOP},
		peer.Check{Title: "NOP that wants no answer", Run: featureNOPSilent},
		peer.Check{Title: "NOP longer than may be answered", Run: featureNOPLong},
		peer.Check{Title: "logout of the session", Run: featureLogout},
		peer.Check{Title: "logout with other reasons", Run: featureLogoutReasons},
		peer.Check{Title: "text", Run: featureText},
		peer.Check{Title: "text in several parts", Run: featureTextParts},
		peer.Check{Title: "text with a tag of nobody", Run: featureTextTag},
		peer.Check{Title: "discovery", Run: featureDiscovery},
		peer.Check{Title: "discovery session is limited", Run: featureDiscoveryLimits},
		peer.Check{Title: "login request", Run: featureLogin},
		peer.Check{Title: "opcodes of nobody", Run: featureOpcodes},
		peer.Check{Title: "task tag in use", Run: featureTagInUse},
		peer.Check{Title: "additional header segments", Run: featureAHS},
		peer.Check{Title: "logical unit that is not there", Run: featureNoUnit},
		peer.Check{Title: "asynchronous logout request", Run: featureAsyncLogout},
	)
}

func featureOrder(t peer.T, g *peer.Target) {
	p := g.Session(t)
	first, second, third := p.Nth(0), p.Nth(1), p.Nth(2)
	p.Must("send", p.Send(third, second))
	p.Quiet() // they wait for the one before them
	p.Must("send", p.Send(first))
	for _, want := range []uint32{first.ITT(), second.ITT(), third.ITT()} {
		if r := p.Want(wire.OpResponse); r.ITT() != want {
			t.Errorf("response for tag %#x, want %#x", r.ITT(), want)
		}
	}
	p.CmdSN += 3
	p.MustReady()
	p.Leave()
}

func featureWrap(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	p.CmdSN, p.MaxCmdSN = 0xfffffffa, 0xfffffffa
	p.Enter()
	for range 16 {
		p.MustReady()
	}
	p.Leave()
}

func featureImmediate(t peer.T, g *peer.Target) {
	p := g.Session(t)
	ping := wire.NopOut(p.NextITT(), wire.Reserved, nil)
	ping.BHS[0] |= wire.Immediate
	p.Must("send", p.Request(ping))
	if r := p.Want(wire.OpNopIn); r.ExpCmdSN() != p.CmdSN {
		t.Errorf("ExpCmdSN %d after an immediate request, want %d", r.ExpCmdSN(), p.CmdSN)
	}
	// An immediate command overtakes those that wait for their turn.
	late := p.Nth(1)
	now := wire.Command(wire.Final, p.NextITT(), p.LUN, 0, peer.TUR(), nil)
	now.BHS[0] |= wire.Immediate
	now.Put32(24, p.CmdSN)
	now.Put32(28, p.ExpStatSN)
	p.Must("send", p.Send(late, now))
	if r := p.Want(wire.OpResponse); r.ITT() != now.ITT() {
		t.Errorf("response for tag %#x, want the immediate command %#x", r.ITT(), now.ITT())
	}
	p.Quiet()
	ready2(p, late)
	p.Leave()
}

// ready2 fills the gap before a command that waits, and takes both answers.
func ready2(p *peer.Peer, late wire.PDU) {
	p.Helper()
	gap := p.Nth(0)
	p.Must("send", p.Send(gap))
	p.Want(wire.OpResponse)
	if r := p.Want(wire.OpResponse); r.ITT() != late.ITT() {
		p.Errorf("response for tag %#x, want %#x", r.ITT(), late.ITT())
	}
	p.CmdSN += 2
}

// featureClosedWindow sends a command behind MaxCmdSN: it must be ignored.
func featureClosedWindow(t peer.T, g *peer.Target) {
	p := g.Session(t)
	beyond := p.Nth(p.MaxCmdSN - p.CmdSN + 1)
	p.Must("send", p.Send(beyond))
	p.Quiet()
	far := p.Nth(1 << 30)
	p.Must("send", p.Send(far))
	p.Quiet()
	p.MustReady()
	p.Leave()
}

func featureLargeWindow(t peer.T, g *peer.Target) {
	p := g.Session(t)
	n := p.MaxCmdSN - p.CmdSN + 1
	if n < 1 || n > 1<<16 {
		t.Fatalf("a window of %d commands when nothing is in flight", n)
	}
	var all []wire.PDU
	for i := range n {
		all = append(all, p.Nth(i))
	}
	p.Must("send", p.Send(all...))
	p.CmdSN += n
	for range n {
		r := p.Want(wire.OpResponse)
		if r.BHS[3] != wire.Good {
			t.Fatalf("status %#02x", r.BHS[3])
		}
	}
	t.Logf("window of %d commands", n)
	p.MustReady()
	p.Leave()
}

// featureSingleWindow keeps one command in flight, each time the last one that the window allows for.
func featureSingleWindow(t peer.T, g *peer.Target) {
	p := g.Session(t)
	for range 300 {
		r := p.Good(peer.TUR(), 0, nil)
		if d := int32(r.Response.MaxCmdSN() - p.CmdSN); d < 0 {
			t.Fatalf("the window is closed although nothing is in flight: MaxCmdSN is %d behind", -d)
		}
	}
	p.Leave()
}

func featureWindowGrows(t peer.T, g *peer.Target) {
	p := g.Session(t)
	bl := p.BlockLen()
	exp, most := uint32(0), uint32(0)
	for i := range 64 {
		p.Store(uint64(i)*64, bl, peer.Pattern(64*bl, byte(i)))
		r := p.Good(peer.RW16(peer.Read16, uint64(i)*64, 64), 64*bl, nil).Response
		if i > 0 && (int32(r.ExpCmdSN()-exp) < 0 || int32(r.MaxCmdSN()-most) < 0) {
			t.Fatalf("ExpCmdSN %d after %d, MaxCmdSN %d after %d", r.ExpCmdSN(), exp, r.MaxCmdSN(), most)
		}
		exp, most = r.ExpCmdSN(), r.MaxCmdSN()
	}
	p.Leave()
}

// featureRetry sends a command a second time: the copy must do nothing.
func featureRetry(t peer.T, g *peer.Target) {
	p := g.Session(t)
	c := p.Nth(0)
	p.Must("send", p.Send(c, c))
	p.Want(wire.OpResponse)
	p.Quiet()
	p.CmdSN++
	old := p.Nth(0)
	old.Put32(24, p.CmdSN-5)
	p.Must("send", p.Send(old))
	p.Quiet()
	p.MustReady()
	p.Leave()
}

func featureStatSN(t peer.T, g *peer.Target) {
	p := g.Session(t)
	was := p.ExpStatSN
	for i := range uint32(20) {
		if r := p.Good(peer.TUR(), 0, nil); r.Response.StatSN() != was+i {
			t.Fatalf("StatSN %d, want %d", r.Response.StatSN(), was+i)
		}
	}
	p.ExpStatSN -= 10 // acknowledges less than before, which means nothing
	p.MustReady()
	p.ExpStatSN += 0x1000 // acknowledges what was not sent
	c := wire.Command(wire.Final, p.NextITT(), p.LUN, 0, peer.TUR(), nil)
	p.Must("send", p.Request(c))
	_, err := p.NextWithin(p.Timeout)
	if err != nil && !errors.Is(err, wire.ErrHungUp) {
		t.Errorf("after an ExpStatSN of the future: %v", err)
	}
}

func featureNOP(t peer.T, g *peer.Target) {
	p := g.Session(t)
	for _, n := range []int{0, 1, 3, 4, 512, 4095, 8192} {
		data := peer.Pattern(n, byte(n))
		p.Must("send", p.Request(wire.NopOut(p.NextITT(), wire.Reserved, data)))
		r := p.Want(wire.OpNopIn)
		if !bytes.Equal(r.Data, data) || r.TTT() != wire.Reserved {
			t.Errorf("%d bytes came back as %d, TTT %#x", n, len(r.Data), r.TTT())
		}
		if r.ExpCmdSN() != p.CmdSN {
			t.Errorf("ExpCmdSN %d, want %d", r.ExpCmdSN(), p.CmdSN)
		}
	}
	p.Leave()
}

func featureNOPSilent(t peer.T, g *peer.Target) {
	p := g.Session(t)
	silent := wire.NopOut(wire.Reserved, wire.Reserved, peer.Pattern(8, 1))
	silent.BHS[0] |= wire.Immediate
	answer := wire.NopOut(wire.Reserved, 0x12345, nil) // to a ping that was not sent
	answer.BHS[0] |= wire.Immediate
	p.Must("send", p.Request(silent, answer))
	r, err := p.NextWithin(peer.QuietTime)
	if err == nil && r.Opcode() != wire.OpReject {
		t.Fatalf("opcode %#02x as the answer to a NOP-Out that wants none", r.Opcode())
	}
	p.MustReady()
	p.Leave()
}

func featureNOPLong(t peer.T, g *peer.Target) {
	p := g.Session(t, "MaxRecvDataSegmentLength=512")
	p.Must("send", p.Request(wire.NopOut(p.NextITT(), wire.Reserved, peer.Pattern(4096, 1))))
	r := p.Want(wire.OpNopIn)
	if len(r.Data) > 512 {
		t.Errorf("%d bytes, MaxRecvDataSegmentLength is 512", len(r.Data))
	}
	if !bytes.Equal(r.Data, peer.Pattern(4096, 1)[:len(r.Data)]) {
		t.Errorf("the bytes are not those that were sent")
	}
	p.Leave()
}

func featureLogout(t peer.T, g *peer.Target) {
	p := g.Session(t)
	bl := p.BlockLen()
	_, err := p.Start(peer.RW16(peer.Write16, 0, 2048), 0, make([]byte, 2048*bl)) // a command that waits for data
	p.Must("write", err)
	p.Must("logout", p.Request(wire.Logout(wire.LogoutSession, p.NextITT(), 0)))
	for range peer.ClosedMax {
		r, err := p.Next()
		p.Must("logout", err)
		if r.Opcode() == wire.OpLogoutRsp {
			if r.BHS[2] != 0 {
				t.Errorf("response %d", r.BHS[2])
			}
			p.Closed()
			return
		}
	}
	t.Fatalf("no answer")
}

func featureLogoutReasons(t peer.T, g *peer.Target) {
	p := g.Session(t)
	p.Must("logout", p.Request(wire.Logout(wire.LogoutConnection, p.NextITT(), 77)))
	if r := p.Want(wire.OpLogoutRsp); r.BHS[2] != 1 {
		t.Errorf("response %d for a connection that is not there, want 1", r.BHS[2])
	}
	p.Must("logout", p.Request(wire.Logout(wire.LogoutRecovery, p.NextITT(), 0)))
	if r := p.Want(wire.OpLogoutRsp); r.BHS[2] == 0 {
		t.Errorf("the connection was removed for recovery at ErrorRecoveryLevel 0")
	}
	p.MustReady()
	p.Must("logout", p.Request(wire.Logout(wire.LogoutConnection, p.NextITT(), p.CID)))
	if r := p.Want(wire.OpLogoutRsp); r.BHS[2] != 0 {
		t.Errorf("response %d for the connection itself", r.BHS[2])
	}
	p.Closed()
}

func featureText(t peer.T, g *peer.Target) {
	p := g.Session(t)
	p.Must("text", p.Request(wire.Text(wire.Final, p.NextITT(), wire.Reserved, wire.Keys("SendTargets="))))
	r := p.Want(wire.OpTextRsp)
	if r.Flags()&wire.Final == 0 || r.TTT() != wire.Reserved {
		t.Errorf("byte 1 %02x, TTT %#x, want the end of the exchange", r.Flags(), r.TTT())
	}
	if v, _ := wire.Lookup(r.Data, "TargetName"); !strings.EqualFold(v, g.Name) {
		t.Errorf("SendTargets= in a normal session: %q", v)
	}
	p.Must("text", p.Request(wire.Text(wire.Final, p.NextITT(), wire.Reserved, wire.Keys("MaxBurstLength=4096"))))
	if v, _ := wire.Lookup(p.Want(wire.OpTextRsp).Data, "MaxBurstLength"); v == "4096" {
		t.Errorf("MaxBurstLength was negotiated again in full feature phase")
	}
	p.MustReady()
	p.Leave()
}

// featureTextParts negotiates without F, and with C.
func featureTextParts(t peer.T, g *peer.Target) {
	p := g.Session(t)
	itt := p.NextITT()
	p.Must("text", p.Request(wire.Text(wire.Continue, itt, wire.Reserved, []byte("X-com.exam"))))
	r := p.Want(wire.OpTextRsp)
	if r.Flags()&wire.Final != 0 || r.TTT() == wire.Reserved || len(r.Data) != 0 {
		t.Fatalf("byte 1 %02x, TTT %#x and %d bytes for a part", r.Flags(), r.TTT(), len(r.Data))
	}
	p.Must("text", p.Request(wire.Text(wire.Final, itt, r.TTT(), []byte("ple=1\x00"))))
	r = p.Want(wire.OpTextRsp)
	if v, _ := wire.Lookup(r.Data, "X-com.example"); v != "NotUnderstood" || r.Flags()&wire.Final == 0 {
		t.Errorf("byte 1 %02x, %q", r.Flags(), r.Data)
	}
	p.Leave()
}

func featureTextTag(t peer.T, g *peer.Target) {
	p := g.Session(t)
	p.Must("text", p.Request(wire.Text(wire.Final, p.NextITT(), 0x1234, wire.Keys("SendTargets="))))
	p.NotGood()
	g.Session(t).Leave()
}

// discover opens a discovery session.
func discover(g *peer.Target, t peer.T) *peer.Peer {
	t.Helper()
	p := g.Dial(t)
	p.Must("discovery login", p.Login(wire.Login{Initiator: g.Initiator, ISID: p.ISID}))
	return p
}

func featureDiscovery(t peer.T, g *peer.Target) {
	p := discover(g, t)
	p.Must("text", p.Request(wire.Text(wire.Final, p.NextITT(), wire.Reserved, wire.Keys("SendTargets=All"))))
	all := p.Want(wire.OpTextRsp)
	found, address := false, ""
	for _, kv := range wire.Pairs(all.Data) {
		k, v, _ := strings.Cut(kv, "=")
		switch {
		case k == "TargetName":
			found = found || strings.EqualFold(v, g.Name)
		case k == "TargetAddress" && found && address == "":
			address = v
		}
	}
	if !found || !strings.Contains(address, ",") {
		t.Errorf("SendTargets=All: %q", wire.Pairs(all.Data))
	}
	p.Must("text", p.Request(wire.Text(wire.Final, p.NextITT(), wire.Reserved, wire.Keys("SendTargets="+g.Name))))
	if v, n := wire.Lookup(p.Want(wire.OpTextRsp).Data, "TargetName"); n != 1 || !strings.EqualFold(v, g.Name) {
		t.Errorf("SendTargets of one target: %q, %d times", v, n)
	}
	p.Must("text", p.Request(wire.Text(wire.Final, p.NextITT(), wire.Reserved, wire.Keys("SendTargets="+g.Name+".none"))))
	if _, n := wire.Lookup(p.Want(wire.OpTextRsp).Data, "TargetName"); n != 0 {
		t.Errorf("SendTargets of no target finds %d", n)
	}
	p.Must("nop", p.Request(wire.NopOut(p.NextITT(), wire.Reserved, nil)))
	p.Want(wire.OpNopIn)
	p.Leave()
}

func featureDiscoveryLimits(t peer.T, g *peer.Target) {
	for _, r := range []func(*peer.Peer) wire.PDU{
		func(p *peer.Peer) wire.PDU { return wire.Command(wire.Final, p.NextITT(), 0, 0, peer.TUR(), nil) },
		func(p *peer.Peer) wire.PDU { return wire.TMF(wire.TargetColdReset, p.NextITT(), 0, wire.Reserved, 0) },
		func(p *peer.Peer) wire.PDU { return wire.DataOut(wire.Final, 1, 1, 0, 0, 0, make([]byte, 512)) },
	} {
		p := discover(g, t)
		p.Must("send", p.Request(r(p)))
		p.NotGood()
	}
	g.Session(t).Leave()
}

func featureLogin(t peer.T, g *peer.Target) {
	p := g.Session(t)
	p.Must("send", p.Send(p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, wire.Keys(g.Names()...))))
	p.Violation()
}

// featureOpcodes sends opcodes that only targets send, that are reserved, and that are vendors'.
func featureOpcodes(t peer.T, g *peer.Target) {
	for _, op := range []byte{0x07, 0x0f, 0x1c, 0x1f, wire.OpNopIn, wire.OpResponse, wire.OpR2T, wire.OpAsync, 0x3c, wire.OpReject} {
		p := g.Session(t)
		p.Must("send", p.Request(wire.New(op|wire.Immediate, wire.Final, p.NextITT())))
		r, err := p.Next()
		switch {
		case errors.Is(err, wire.ErrHungUp):
		case err != nil:
			t.Errorf("opcode %#02x: %v", op, err)
		case r.Opcode() != wire.OpReject:
			t.Errorf("opcode %#02x is answered with opcode %#02x", op, r.Opcode())
		case len(r.Data) < wire.BHSLen:
			t.Errorf("opcode %#02x: the Reject has %d bytes of the rejected header", op, len(r.Data))
		}
		p.Close()
	}
	g.Session(t).Leave()
}

// featureTagInUse begins a command with the tag of one that waits for data.
func featureTagInUse(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	bl := p.BlockLen()
	data := peer.Pattern(bl, 1)
	itt, err := p.Start(peer.RW16(peer.Write16, 0, 1), 0, data)
	p.Must("write", err)
	r2t := p.Want(wire.OpR2T)
	p.Must("send", p.Request(wire.Command(wire.Final, itt, p.LUN, 0, peer.TUR(), nil)))
	r, err := p.Next()
	if errors.Is(err, wire.ErrHungUp) {
		return
	}
	p.Must("second command", err)
	if r.Opcode() != wire.OpReject {
		t.Fatalf("opcode %#02x for a task tag in use, want a Reject", r.Opcode())
	}
	p.Must("data", p.AnswerR2T(&r2t, data))
	if res, err := p.Finish(itt, data); err != nil || res.Err() != nil {
		t.Errorf("the first command: %v, %v", err, res.Err())
	}
	p.Leave()
}

// featureAHS sends an additional header segment of an unknown type, one that is longer than the PDU says, and one with a
// CDB of 32 bytes.
func featureAHS(t peer.T, g *peer.Target) {
	for _, ahs := range [][]byte{
		{0, 5, 0x3f, 0, 1, 2, 3, 4},
		{0xff, 0xff, 1, 0},
		{0, 0, 1, 0},
		{0, 17, 1, 0, 1, 2, 3, 4},
		append([]byte{0, 17, 1, 0}, make([]byte, 16)...),
		{0, 5, 2, 0, 0, 0, 2, 0},
		bytes.Repeat([]byte{0, 1, 2, 3}, 255),
	} {
		p := g.Session(t)
		c := wire.Command(wire.Final, p.NextITT(), p.LUN, 0, append([]byte{0x7f, 0, 0, 0, 0, 0, 0, 24}, make([]byte, 8)...), nil)
		c.AHS = ahs
		p.Must("send", p.Request(c))
		p.NotGood()
		p.Close()
	}
	g.Session(t).Leave()
}

func featureNoUnit(t peer.T, g *peer.Target) {
	p := g.Session(t)
	p.LUN = wire.LUN(201)
	if r := p.MustDo(peer.TUR(), 0, nil); r.Status != wire.CheckCondition || r.Sense != (wire.Sense{Key: 5, ASC: 0x25}) {
		t.Errorf("TEST UNIT READY: %v, want 05/25/00", r.Err())
	}
	r := p.Good([]byte{peer.Inquiry, 0, 0, 0, 36, 0}, 36, nil)
	if len(r.Data) < 1 || r.Data[0]>>5 != 1 && r.Data[0] != 0x7f {
		t.Errorf("INQUIRY: peripheral % x, want qualifier 1 or 7Fh", r.Data[:min(1, len(r.Data))])
	}
	for _, lun := range []uint64{0xc1 << 56, 0x8000 << 48, 1<<48 | 5, 0xffffffffffffffff} {
		p.LUN = lun
		if r := p.MustDo(peer.TUR(), 0, nil); r.Status != wire.CheckCondition {
			t.Errorf("LUN %016x: status %#02x", lun, r.Status)
		}
	}
	p.LUN = wire.LUN(g.LUN)
	p.MustReady()
	p.Leave()
}

func featureAsyncLogout(t peer.T, g *peer.Target) {
	if g.Drain == nil {
		t.Skipf("nobody here can stop the target")
	}
	p := g.Session(t)
	g.Drain()
	a := p.Want(wire.OpAsync)
	if a.BHS[36] != 1 || a.ITT() != wire.Reserved {
		t.Fatalf("event %d, tag %#x, want a logout request", a.BHS[36], a.ITT())
	}
	if wait := time.Duration(a.BHS[42])<<8 | time.Duration(a.BHS[43]); wait == 0 || wait > 3600 {
		t.Errorf("%d seconds for the logout", wait)
	}
	p.MustReady()
	p.Leave()
}
