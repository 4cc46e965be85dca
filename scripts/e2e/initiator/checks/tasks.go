package checks

import (
	"errors"
	"strconv"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// Tasks are the checks of task management and of sessions with several connections (RFC 7143 sections 11.5, 4.2.3,
// RFC 5048, RFC 7144).
func Tasks() []peer.Check {
	return peer.Suite("tasks",
		peer.Check{Title: "ABORT TASK of a write that waits for data", Run: taskAbort},
		peer.Check{Title: "ABORT TASK of a task that is not there", Run: taskAbortMissing},
		peer.Check{Title: "ABORT TASK of a command that is still to come", Run: taskAbortGap},
		peer.Check{Title: "ABORT TASK SET", Run: taskAbortSet},
		peer.Check{Title: "LOGICAL UNIT RESET", Run: taskReset},
		peer.Check{Title: "LOGICAL UNIT RESET of a unit that is not there", Run: taskResetMissing},
		peer.Check{Title: "unit attention of the others after a reset", Run: taskResetOthers},
		peer.Check{Title: "TARGET WARM RESET", Run: taskWarmReset},
		peer.Check{Title: "TASK REASSIGN", Run: taskReassign},
		peer.Check{Title: "unknown function", Run: taskUnknown},
		peer.Check{Title: "QUERY TASK and QUERY TASK SET", Run: taskQuery},
		peer.Check{Title: "second connection of a session", Run: connectionSecond},
		peer.Check{Title: "more connections than negotiated", Run: connectionTooMany},
	)
}

func taskAbort(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	r2t, sn, data := p.Waiting()
	if got := p.Manage(wire.AbortTask, r2t.ITT(), sn, nil); got != wire.TMFComplete {
		t.Fatalf("response %d", got)
	}
	p.Must("late data", p.AnswerR2T(&r2t, data)) // was on its way
	p.Quiet()
	p.MustReady()
	p.Leave()
}

func taskAbortMissing(t peer.T, g *peer.Target) {
	p := g.Session(t)
	if got := p.Manage(wire.AbortTask, 0x5555, p.CmdSN-1, nil); got != wire.TMFNoTask {
		t.Errorf("response %d for a task that has ended, want 1, task does not exist", got)
	}
	p.MustReady()
	p.Leave()
}

// taskAbortGap aborts a command that was lost on its way: it counts as received (RFC 7143 section 11.5.1).
func taskAbortGap(t peer.T, g *peer.Target) {
	p := g.Session(t)
	lost := p.Nth(0)
	late := p.Nth(1)
	p.Must("send", p.Send(late))
	p.Quiet()
	p.CmdSN += 2
	answered := false
	got := p.Manage(wire.AbortTask, lost.ITT(), lost.U32(24), func(r wire.PDU) { answered = answered || r.ITT() == late.ITT() })
	if got != wire.TMFComplete {
		t.Fatalf("response %d, want 0", got)
	}
	if !answered {
		if r := p.Want(wire.OpResponse); r.ITT() != late.ITT() {
			t.Errorf("response for tag %#x", r.ITT())
		}
	}
	p.Must("send", p.Send(lost)) // arrives after all
	p.Quiet()
	p.MustReady()
	p.Leave()
}

func taskAbortSet(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	q := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	other, _, data := q.Waiting()
	r2t, _, mine := p.Waiting()
	p.Waiting()
	if got := p.Manage(wire.AbortTaskSet, wire.Reserved, 0, nil); got != wire.TMFComplete {
		t.Fatalf("response %d", got)
	}
	p.Must("late data", p.AnswerR2T(&r2t, mine))
	p.Quiet()
	p.MustReady()
	q.Must("data", q.AnswerR2T(&other, data)) // the other session's task goes on
	if r := q.Want(wire.OpResponse); r.BHS[3] != wire.Good {
		t.Errorf("status %#02x of the other session's task", r.BHS[3])
	}
	p.Leave()
	q.Leave()
}

func taskReset(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	p.Waiting()
	if got := p.Manage(wire.LogicalUnitReset, wire.Reserved, 0, nil); got != wire.TMFComplete {
		t.Fatalf("response %d", got)
	}
	p.Quiet()
	if r := p.MustDo(peer.TUR(), 0, nil); r.Sense.Key != 6 || r.Sense.ASC != 0x29 {
		t.Errorf("after a reset: %v, want a unit attention 29h", r.Err())
	}
	p.MustReady()
	p.Leave()
}

func taskResetMissing(t peer.T, g *peer.Target) {
	p := g.Session(t)
	p.LUN = wire.LUN(201)
	if got := p.Manage(wire.LogicalUnitReset, wire.Reserved, 0, nil); got != wire.TMFNoUnit {
		t.Errorf("response %d, want 2, LUN does not exist", got)
	}
	p.LUN = wire.LUN(g.LUN)
	p.MustReady()
	p.Leave()
}

func taskResetOthers(t peer.T, g *peer.Target) {
	p, q := g.Session(t), g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	q.Waiting()
	if got := p.Manage(wire.LogicalUnitReset, wire.Reserved, 0, nil); got != wire.TMFComplete {
		t.Fatalf("response %d", got)
	}
	for range 2 { // the write of q ends without a status, or with TASK ABORTED if the target says so (TAS)
		r := doAny(q, peer.TUR())
		if r.Opcode() == wire.OpResponse && r.BHS[3] == wire.TaskAborted {
			continue
		}
		if s := wire.ParseSense(r.Data); s.Key != 6 || s.ASC != 0x29 {
			t.Errorf("the other session: sense %v, want a unit attention 29h", s)
		}
		break
	}
	p.MustReady()
	p.Leave()
}

// doAny sends a command and returns the next response, of whichever command.
func doAny(p *peer.Peer, cdb []byte) wire.PDU {
	p.Helper()
	p.Must("send", p.Request(wire.Command(wire.Final, p.NextITT(), p.LUN, 0, cdb, nil)))
	return p.Want(wire.OpResponse)
}

func taskWarmReset(t peer.T, g *peer.Target) {
	p, q := g.Session(t, "InitialR2T=Yes", "ImmediateData=No"), g.Session(t)
	p.Waiting()
	switch got := p.Manage(wire.TargetWarmReset, wire.Reserved, 0, nil); got {
	case wire.TMFNotSupported, wire.TMFRejected, 6:
		t.Skipf("response %d: not supported", got)
	case wire.TMFComplete:
	default:
		t.Fatalf("response %d", got)
	}
	for _, h := range []*peer.Peer{p, q} {
		if r := h.MustDo(peer.TUR(), 0, nil); r.Sense.Key != 6 || r.Sense.ASC != 0x29 {
			t.Errorf("after a target reset: %v, want a unit attention 29h", r.Err())
		}
		h.MustReady()
		h.Leave()
	}
}

func taskReassign(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No", "ErrorRecoveryLevel=1")
	r2t, _, data := p.Waiting()
	if got := p.Manage(wire.TaskReassign, r2t.ITT(), 0, nil); got == wire.TMFComplete {
		t.Errorf("a task was reassigned below ErrorRecoveryLevel 2")
	} else if got != wire.TMFNoReassign && got != wire.TMFNotSupported {
		t.Errorf("response %d, want 4, task allegiance reassignment not supported", got)
	}
	p.Must("data", p.AnswerR2T(&r2t, data))
	p.Want(wire.OpResponse)
	p.Leave()
}

func taskUnknown(t peer.T, g *peer.Target) {
	for _, f := range []byte{0, 13, 64, 127} {
		p := g.Session(t)
		req := wire.TMF(f, p.NextITT(), p.LUN, wire.Reserved, 0)
		p.Must("send", p.Request(req))
		r, err := p.Next()
		switch {
		case errors.Is(err, wire.ErrHungUp):
		case err != nil:
			t.Errorf("function %d: %v", f, err)
		case r.Opcode() == wire.OpTMFRsp && r.BHS[2] == wire.TMFComplete:
			t.Errorf("function %d is complete", f)
		case r.Opcode() != wire.OpTMFRsp && r.Opcode() != wire.OpReject:
			t.Errorf("function %d: opcode %#02x", f, r.Opcode())
		}
		p.Close()
	}
	g.Session(t).Leave()
}

func taskQuery(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No", "iSCSIProtocolLevel=2")
	if p.Answer("iSCSIProtocolLevel") != "2" {
		got := p.Manage(wire.QueryTask, 1, 0, nil)
		if got != wire.TMFNotSupported && got != wire.TMFRejected {
			t.Errorf("QUERY TASK without iSCSIProtocolLevel 2: response %d", got)
		}
		t.Skipf("iSCSIProtocolLevel=%q", p.Answer("iSCSIProtocolLevel"))
	}
	if got := p.Manage(wire.QueryTaskSet, wire.Reserved, 0, nil); got != wire.TMFComplete {
		t.Errorf("QUERY TASK SET without tasks: response %d, want 0", got)
	}
	r2t, sn, data := p.Waiting()
	if got := p.Manage(wire.QueryTask, r2t.ITT(), sn, nil); got != wire.TMFSucceeded {
		t.Errorf("QUERY TASK: response %d, want 7, function succeeded", got)
	}
	if got := p.Manage(wire.QueryTaskSet, wire.Reserved, 0, nil); got != wire.TMFSucceeded {
		t.Errorf("QUERY TASK SET: response %d, want 7", got)
	}
	p.Must("data", p.AnswerR2T(&r2t, data))
	p.Want(wire.OpResponse)
	if got := p.Manage(wire.QueryTask, r2t.ITT(), sn, nil); got != wire.TMFComplete {
		t.Errorf("QUERY TASK of a task that has ended: response %d, want 0", got)
	}
	p.Leave()
}

// join adds a connection to the session of p.
func join(p *peer.Peer, cid uint16) (*peer.Peer, error) {
	p.Helper()
	q := p.G.Dial(p.T)
	q.ISID, q.CmdSN, q.MaxCmdSN = p.ISID, p.CmdSN, p.MaxCmdSN
	err := q.Login(wire.Login{
		Initiator: p.G.Initiator, Target: p.G.Name, ISID: p.ISID, TSIH: p.TSIH, CID: cid,
		Keys: []string{"HeaderDigest=None", "DataDigest=None", "MaxRecvDataSegmentLength=262144"},
	})
	return q, err
}

// connectionSecond has commands on two connections come in the order of their CmdSN.
func connectionSecond(t peer.T, g *peer.Target) {
	p := g.Session(t, "MaxConnections=2")
	if n, _ := strconv.Atoi(p.Answer("MaxConnections")); n < 2 {
		t.Skipf("MaxConnections=%s", p.Answer("MaxConnections"))
	}
	q, err := join(p, 1)
	p.Must("second connection", err)
	if q.TSIH != p.TSIH {
		t.Errorf("TSIH %d, the session has %d", q.TSIH, p.TSIH)
	}
	bl := p.BlockLen()
	q.CmdSN = p.CmdSN
	second := q.Nth(1)
	q.Must("send", q.Send(second))
	q.Quiet()
	p.MustReady()
	if r := q.Want(wire.OpResponse); r.ITT() != second.ITT() {
		t.Errorf("tag %#x", r.ITT())
	}
	p.CmdSN++
	p.Store(0, bl, peer.Pattern(bl, 33))
	q.CmdSN = p.CmdSN
	q.Holds(0, bl, peer.Pattern(bl, 33))
	q.Must("logout of one connection", q.Request(wire.Logout(wire.LogoutConnection, q.NextITT(), 1)))
	if r := q.Want(wire.OpLogoutRsp); r.BHS[2] != 0 {
		t.Errorf("logout response %d", r.BHS[2])
	}
	q.Closed()
	p.CmdSN = q.CmdSN
	p.MustReady()
	p.Leave()
}

func connectionTooMany(t peer.T, g *peer.Target) {
	p := g.Session(t, "MaxConnections=1")
	q, err := join(p, 1)
	q.Refused(2, err)
	p.MustReady()
	p.Leave()
}
