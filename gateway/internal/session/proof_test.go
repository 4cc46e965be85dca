package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// proving is a medium whose writes come to a Proof.
type proving struct {
	*disk
	proof *Proof
}

func (m *proving) Write(ctx context.Context, p []byte, off int64) error {
	if err := m.proof.Await(ctx); err != nil {
		return err
	}
	return m.disk.Write(ctx, p, off)
}

// newProvingPeer is a peer whose LUN 0 has such a medium. Its tasks are kept.
func newProvingPeer(t *testing.T) (*peer, *proving) {
	t.Helper()
	p := newPeer(t, defaults())
	p.asks, p.hold = make(chan ask), true
	m := &proving{p.disk, new(Proof)}
	maps := p.luns.Mappings()
	maps[0].Backend = m
	if err := p.luns.Update(maps...); err != nil {
		t.Fatal(err)
	}
	return p, m
}

// write has block n written with n on a connection, and returns the task, which runs on a goroutine of its own until ended
// is closed.
func (p *peer) write(t *testing.T, c *Conn, n byte) (task *Task, ended chan struct{}) {
	t.Helper()
	h := pdu.SCSICommand{
		Final: true, Write: true, Attr: pdu.AttrSimple, ITT: pdu.ITT(n), ExpectedDataTransferLength: blockSize, CDB: rw10(0x2a, uint32(n), 1),
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: p.s.order.exp},
	}
	data := make([]byte, blockSize)
	data[0] = n
	if err := p.send(c, header(&h, len(data)), nil, data); err != nil || len(p.tasks) != 1 {
		t.Fatalf("%d tasks, %v", len(p.tasks), err)
	}
	task, p.tasks = p.tasks[0], nil
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		task.Run()
	}()
	return task, ended
}

// wrote tells whether block n was written.
func (p *peer) wrote(n byte) bool { return p.disk.data[int(n)*blockSize] == n }

// pinged answers the next call of Config.Prove, and returns the tag of the NOP-In that came of it, reserved if none did.
func (p *peer) pinged(t *testing.T) pdu.TTT {
	t.Helper()
	var a ask
	select {
	case a = <-p.asks:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody asks")
	}
	answered := a.c.Prove(a.m)
	p.settle()
	ttt := pdu.TTT(pdu.ReservedTag)
	p.take(t, a.c, func(u *PDU) {
		if u.Header.Opcode() == pdu.OpNOPIn {
			ttt = u.Header.TTT()
		}
	})
	a.reply <- answered
	return ttt
}

func (p *peer) pong(t *testing.T, c *Conn, ttt pdu.TTT) {
	t.Helper()
	h := pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: ttt, InitiatorSNs: pdu.InitiatorSNs{CmdSN: p.s.order.exp}}
	if err := p.send(c, header(&h, 0), nil, nil); err != nil {
		t.Fatal(err)
	}
}

func (p *peer) complete(task *Task, ended chan struct{}) {
	<-ended
	p.s.Complete(task)
	p.settle()
}

// TestProof: a command reaches the medium when its own connection has answered a ping, those after it at once, and those of a
// connection that began later too.
func TestProof(t *testing.T) {
	p, m := newProvingPeer(t)
	a, b := p.conns[0], p.join(t, defaults(), 1)
	one, ended := p.write(t, a, 1)
	ttt := p.pinged(t)
	if ttt.IsReserved() || p.wrote(1) {
		t.Fatalf("ping %v, written %v", ttt, p.wrote(1))
	}
	p.pong(t, a, ttt)
	p.complete(one, ended)
	p.complete(p.write(t, a, 2))
	other, ended := p.write(t, b, 3) // not proven by a
	ttt = p.pinged(t)
	if !p.wrote(1) || !p.wrote(2) || p.wrote(3) {
		t.Fatalf("written %v, %v and %v", p.wrote(1), p.wrote(2), p.wrote(3))
	}
	p.pong(t, b, ttt)
	p.complete(other, ended)
	p.complete(p.write(t, p.join(t, defaults(), 2), 4))
	if !p.wrote(3) || !p.wrote(4) {
		t.Errorf("written %v and %v", p.wrote(3), p.wrote(4))
	}
	a.Ping() // before the next moment
	before := a.ping
	m.proof = new(Proof)
	one, ended = p.write(t, a, 5)
	if ttt = p.pinged(t); ttt != before {
		t.Fatalf("ping %v, want %v", ttt, before)
	}
	p.pong(t, a, before)
	ttt = p.pinged(t)
	if ttt.IsReserved() || p.wrote(5) {
		t.Fatalf("ping %v, written %v", ttt, p.wrote(5))
	}
	p.pong(t, a, ttt)
	p.complete(one, ended)
	if !p.wrote(5) {
		t.Error("not written")
	}
	p.over(t)
}

// TestPingWaitsForData: the ping is not sent while a write of the connection has data to send, and is when that has come, or
// is not wanted any more.
func TestPingWaitsForData(t *testing.T) {
	for name, abort := range map[string]bool{"data": false, "abort": true} {
		t.Run(name, func(t *testing.T) {
			p, _ := newProvingPeer(t)
			c := p.conns[0]
			h := pdu.SCSICommand{
				Final: true, Write: true, Attr: pdu.AttrSimple, ITT: 7, ExpectedDataTransferLength: blockSize, CDB: rw10(0x2a, 7, 1),
				InitiatorSNs: pdu.InitiatorSNs{CmdSN: p.s.order.exp},
			}
			if err := p.send(c, header(&h, 0), nil, nil); err != nil {
				t.Fatal(err)
			}
			one, ended := p.write(t, c, 1)
			a := <-p.asks
			a.reply <- a.c.Prove(a.m)
			ttts := map[pdu.Opcode]pdu.TTT{}
			look := func() {
				p.settle()
				p.take(t, c, func(u *PDU) { ttts[u.Header.Opcode()] = u.Header.TTT() })
			}
			look()
			if _, pinged := ttts[pdu.OpNOPIn]; pinged || ttts[pdu.OpR2T].IsReserved() {
				t.Fatalf("%v: a ping, or no R2T", ttts)
			}
			p.hold = true
			if abort {
				m := pdu.TMFRequest{
					Immediate: true, Function: pdu.TMFAbortTask, ITT: 9, ReferencedTaskTag: 7, RefCmdSN: h.CmdSN,
					InitiatorSNs: pdu.InitiatorSNs{CmdSN: p.s.order.exp},
				}
				if err := p.send(c, header(&m, 0), nil, nil); err != nil {
					t.Fatal(err)
				}
			} else {
				d := pdu.DataOut{Final: true, ITT: 7, TTT: ttts[pdu.OpR2T]}
				if err := p.send(c, header(&d, blockSize), nil, make([]byte, blockSize)); err != nil {
					t.Fatal(err)
				}
			}
			look()
			ttt, pinged := ttts[pdu.OpNOPIn]
			if !pinged || ttt.IsReserved() || p.wrote(1) {
				t.Fatalf("%v, written %v", ttts, p.wrote(1))
			}
			p.pong(t, c, ttt)
			p.complete(one, ended)
			if !p.wrote(1) {
				t.Error("not written")
			}
			p.over(t)
		})
	}
}

// stream sends a write of size bytes to LUN 1, which asks for no proof, without any data.
func (p *peer) stream(t *testing.T, c *Conn, itt pdu.ITT, size uint32, final bool) {
	t.Helper()
	h := pdu.SCSICommand{
		Final: final, Write: true, Attr: pdu.AttrSimple, ITT: itt, ExpectedDataTransferLength: size, LUN: pdu.LUN{1: 1},
		CDB: rw10(0x2a, 0, uint16(size/blockSize)), InitiatorSNs: pdu.InitiatorSNs{CmdSN: p.s.order.exp},
	}
	if err := p.send(c, header(&h, 0), nil, nil); err != nil {
		t.Fatal(err)
	}
}

// TestPingAmongStreams: long writes are asked for no more data before the ping is sent, and for the rest in their order then.
func TestPingAmongStreams(t *testing.T) {
	const streams = 31
	p, _ := newProvingPeer(t)
	c := p.conns[0]
	burst := p.s.params.MaxBurstLength
	one, ended := p.write(t, c, 1)
	for i := range streams {
		p.stream(t, c, pdu.ITT(100+i), 3*burst, true)
	}
	var r2ts []pdu.Header
	ping := -1 // R2Ts that came before
	var ttt pdu.TTT
	look := func() {
		p.take(t, c, func(u *PDU) {
			switch u.Header.Opcode() {
			case pdu.OpR2T:
				r2ts = append(r2ts, u.Header)
			case pdu.OpNOPIn:
				ping, ttt = len(r2ts), u.Header.TTT()
			}
		})
	}
	a := <-p.asks
	a.reply <- a.c.Prove(a.m)
	look()
	for next := 0; next < len(r2ts); next++ {
		r, err := pdu.ParseR2T(&r2ts[next], nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if next >= streams && next < 2*streams && r.ITT != pdu.ITT(100+next-streams) {
			t.Errorf("R2T %d is for task %d", next, r.ITT)
		}
		d := pdu.DataOut{Final: true, ITT: r.ITT, TTT: r.TTT, BufferOffset: r.BufferOffset}
		if err := p.send(c, header(&d, int(burst)), nil, make([]byte, burst)); err != nil {
			t.Fatal(err)
		}
		look()
	}
	if ping != streams || len(r2ts) != 3*streams || len(p.tasks) != streams {
		t.Fatalf("the ping after %d R2Ts of %d, %d tasks have their data", ping, len(r2ts), len(p.tasks))
	}
	p.pong(t, c, ttt)
	p.complete(one, ended)
	p.finish(pdu.ReservedTag)
	p.over(t)
}

// TestPingIsSentAnyway: what comes unsolicited delays the ping no longer than pingTicks, a second one neither.
func TestPingIsSentAnyway(t *testing.T) {
	p, m := newProvingPeer(t)
	c := p.conns[0]
	for n := byte(1); n <= 2; n++ {
		m.proof = new(Proof)
		p.stream(t, c, pdu.ITT(100+n), blockSize, false) // its data do not come
		one, ended := p.write(t, c, n)
		a := <-p.asks
		a.reply <- a.c.Prove(a.m)
		ttt, ticks := pdu.TTT(pdu.ReservedTag), 0
		for ; ttt.IsReserved() && ticks <= pingTicks; ticks++ {
			p.s.Tick()
			p.settle()
			p.take(t, c, func(u *PDU) {
				if u.Header.Opcode() == pdu.OpNOPIn {
					ttt = u.Header.TTT()
				}
			})
		}
		if ticks != pingTicks {
			t.Fatalf("ping %v after %d ticks", ttt, ticks)
		}
		p.pong(t, c, ttt)
		p.complete(one, ended)
	}
	p.over(t)
}

// TestUnwanted: what the initiator sent before its answer ends the command, which does not reach the medium then.
func TestUnwanted(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, p *peer, c *Conn, ttt pdu.TTT){
		"abort": func(t *testing.T, p *peer, c *Conn, ttt pdu.TTT) {
			h := pdu.TMFRequest{
				Immediate: true, Function: pdu.TMFAbortTask, ITT: 9, ReferencedTaskTag: 1, InitiatorSNs: pdu.InitiatorSNs{CmdSN: p.s.order.exp},
			}
			if err := p.send(c, header(&h, 0), nil, nil); err != nil {
				t.Fatal(err)
			}
			p.pong(t, c, ttt)
		},
		"logout": func(t *testing.T, p *peer, c *Conn, _ pdu.TTT) {
			h := pdu.LogoutRequest{Immediate: true, ITT: 9, InitiatorSNs: pdu.InitiatorSNs{CmdSN: p.s.order.exp}}
			if err := p.send(c, header(&h, 0), nil, nil); err != nil {
				t.Fatal(err)
			}
		},
		"loss":  func(_ *testing.T, _ *peer, c *Conn, _ pdu.TTT) { c.Lost() },
		"end":   func(_ *testing.T, p *peer, _ *Conn, _ pdu.TTT) { p.s.End() },
		"reset": func(_ *testing.T, p *peer, _ *Conn, _ pdu.TTT) { p.s.AbortUnit(0, p.s.cfg.Resets.Add(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := newProvingPeer(t)
			c := p.conns[0]
			task, ended := p.write(t, c, 1)
			end(t, p, c, p.pinged(t))
			p.settle()
			p.complete(task, ended)
			if p.wrote(1) {
				t.Error("written")
			}
			p.take(t, c, func(u *PDU) {
				if u.Header.Opcode() == pdu.OpSCSIResponse {
					t.Error("a status")
				}
			})
			p.over(t)
		})
	}
}

// TestProofOfACopy: a copy from one logical unit to another is asked for on the connection of its command, whichever of their
// media asks.
func TestProofOfACopy(t *testing.T) {
	p, _ := newProvingPeer(t)
	maps := p.luns.Mappings()
	maps[0].Backend, maps[1].Backend = p.disk, maps[0].Backend
	if err := p.luns.Update(maps...); err != nil {
		t.Fatal(err)
	}
	c := p.conns[0]
	task, ended := p.copy(t, c)
	ttt := p.pinged(t)
	if ttt.IsReserved() {
		t.Fatal("no ping")
	}
	p.pong(t, c, ttt)
	p.complete(task, ended)
	status := scsi.Status(0xff)
	p.take(t, c, func(u *PDU) { status = scsi.Status(u.Header[3]) })
	if status != scsi.StatusGood {
		t.Errorf("status %v", status)
	}
	p.over(t)
}

// TestNoCommand: only a command that an initiator waits for comes past a Proof.
func TestNoCommand(t *testing.T) {
	p, m := newProvingPeer(t)
	inline := p.s.newTask(p.conns[0])
	for _, ctx := range []context.Context{context.Background(), inline.ctx} {
		if err := m.Write(ctx, make([]byte, blockSize), 0); !errors.Is(err, ErrNoCommand) {
			t.Errorf("%v", err)
		}
	}
	p.s.recycle(inline)
	p.over(t)
}

var _ scsi.Backend = (*proving)(nil)
