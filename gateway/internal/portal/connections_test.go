package portal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// more logs in with a connection more for the session of i.
func (i *initiator) more(p *Portal, cid pdu.CID) (*initiator, error) {
	i.t.Helper()
	j := dial(i.t, p)
	j.tsih, j.cid, j.cmdSN = i.tsih, cid, i.cmdSN
	j.itt = pdu.ITT(cid) << 20
	return j, j.login(testInitiator, 1)
}

// several returns a session with n connections.
func several(t *testing.T, p *Portal, n int) []*initiator {
	t.Helper()
	i := dial(t, p)
	if err := i.login(testInitiator, 1, "MaxConnections=8"); err != nil {
		t.Fatal(err)
	}
	i.ready()
	all := []*initiator{i}
	for cid := 1; cid < n; cid++ {
		j, err := i.more(p, pdu.CID(cid))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, j)
	}
	return all
}

// read1 reads a block of 512 bytes with the command number sn.
func (i *initiator) read1(sn pdu.CmdSN, lba uint32) {
	i.cmdSN = sn
	i.rw(0x28, lba, 512, nil)
}

// TestConnections spreads commands over the connections of a session: one order of commands, answers where they were
// asked for.
func TestConnections(t *testing.T) {
	p, r, _ := testServer(t, nil)
	all := several(t, p, 4)
	a, b := all[0], all[1]
	if _, err := a.more(p, 9); err == nil || !strings.Contains(err.Error(), "0206") {
		t.Errorf("a fifth connection: %v", err)
	}
	stray := &initiator{t: t, tsih: a.tsih + 1}
	if _, err := stray.more(p, 1); err == nil || !strings.Contains(err.Error(), "020a") {
		t.Errorf("a session that is not there: %v", err)
	}
	if n := len(r.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
	sn, data := a.cmdSN, random(512)
	b.cmdSN = sn + 1
	b.attr = pdu.AttrOrdered
	b.rw(0x28, 0, 512, nil) // comes before the write that is before it
	time.Sleep(10 * time.Millisecond)
	a.rw(0x2a, 0, 512, data)
	a.must(pdu.OpSCSIResponse)
	if got := b.readData(); !bytes.Equal(got, data) {
		t.Error("the later command on the other connection read something else")
	}
	if s := p.Sessions(); len(s) != 1 || len(s[0].Conns) != 4 || s[0].Login.InitiatorName != testInitiator || s[0].Stats.Commands < 3 ||
		s[0].Conns[1].Login.CID != 1 || s[0].Conns[1].Initiator != b.nc.LocalAddr().String() {
		t.Errorf("%+v", s)
	}
	for n, i := range all {
		i.read1(sn+2+pdu.CmdSN(n), 0)
		i.readData()
	}
	// A connection can be logged out on another one.
	h := pdu.LogoutRequest{Immediate: true, Reason: pdu.LogoutCloseConnection, CID: 2, ITT: 77, InitiatorSNs: pdu.InitiatorSNs{CmdSN: sn + 6}}
	a.write(h.AppendHeader(nil, 0), nil)
	if x := a.must(pdu.OpLogoutResponse); x.Header[2] != 0 {
		t.Errorf("logout: %d", x.Header[2])
	}
	all[2].closed()
	all[3].read1(sn+6, 0)
	all[3].readData()
	a.cmdSN = sn + 7
	a.logout()
	b.closed()
	all[3].closed()
	eventually(t, "the session ends", func() bool { return len(r.Sessions()) == 0 && p.Stats().Conns == 0 })
}

// TestConnectionLost loses a connection with a write in flight, which is fenced. The session goes on, and so it does when
// the initiator brings a connection again that the target still has.
func TestConnectionLost(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprint("again ", again), func(t *testing.T) {
			p, r, m := testServer(t, nil)
			all := several(t, p, 2)
			a, b := all[0], all[1]
			sn := a.cmdSN
			gate := make(chan struct{})
			m.disks[testVolume].hold.Store(&gate)
			b.cmdSN = sn
			b.rw(0x2a, 0, 512, random(512))
			eventually(t, "write", func() bool { return m.disks[testVolume].calls.Load() == 1 })
			if again {
				a.cmdSN = sn + 1
				c, err := a.more(p, b.cid)
				if err != nil {
					t.Fatal(err)
				}
				b.closed()
				b = c
			} else {
				_ = b.nc.Close()
			}
			eventually(t, "the write is fenced", func() bool { return len(m.noted()) == 1 })
			m.disks[testVolume].hold.Store(nil)
			a.read1(sn+1, 0)
			a.readData()
			if again {
				b.read1(sn+2, 0)
				b.readData()
			} else {
				eventually(t, "the connection is gone", func() bool { return p.Stats().Conns == 1 })
			}
			if n := len(r.Sessions()); n != 1 {
				t.Errorf("%d sessions", n)
			}
		})
	}
}

// TestReinstatementOfSeveral logs in under the name of a session with several connections: all of them are closed, and their
// running writes are fenced, before the login is answered.
func TestReinstatementOfSeveral(t *testing.T) {
	p, r, m := testServer(t, nil)
	all := several(t, p, 3)
	gate := make(chan struct{})
	m.disks[testVolume].hold.Store(&gate)
	sn := all[0].cmdSN
	for n, i := range all {
		i.cmdSN = sn + pdu.CmdSN(n)
		i.rw(0x2a, uint32(n)*8, 512, random(512))
	}
	eventually(t, "writes", func() bool { return m.disks[testVolume].calls.Load() == 3 })
	next := dial(t, p)
	if err := next.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	if got := m.noted(); len(got) != 1 {
		t.Errorf("notes %q", got)
	}
	for _, i := range all {
		i.closed()
	}
	m.disks[testVolume].hold.Store(nil)
	next.ready()
	if n := len(r.Sessions()); n != 1 || next.tsih == all[0].tsih {
		t.Errorf("%d sessions, TSIH %d after %d", n, next.tsih, all[0].tsih)
	}
	next.logout()
}

// TestOneConnectionAgain brings the only connection of a session again: the session goes on.
func TestOneConnectionAgain(t *testing.T) {
	p, r, _ := testServer(t, nil)
	a := dial(t, p)
	if err := a.login(testInitiator, 1); err != nil { // MaxConnections is 1
		t.Fatal(err)
	}
	a.ready()
	if _, err := a.more(p, 1); err == nil || !strings.Contains(err.Error(), "0206") {
		t.Errorf("a second connection: %v", err)
	}
	b, err := a.more(p, 0)
	if err != nil {
		t.Fatal(err)
	}
	a.closed()
	b.read1(b.cmdSN, 0) // no unit attention
	b.readData()
	b.logout()
	eventually(t, "the session ends", func() bool { return len(r.Sessions()) == 0 })
}

// TestConnectionStorm has the connections of a session work at the same time; one is lost and brought again all the time.
// Run it with -race.
func TestConnectionStorm(t *testing.T) {
	p, r, _ := testServer(t, func(c *Config) { c.PingInterval = 0 })
	all := several(t, p, 4)
	var mu sync.Mutex // the numbers of the session, in the order of sending on each connection
	next := all[0].cmdSN
	send := func(i *initiator, op byte, lba uint32, data []byte) {
		mu.Lock()
		i.cmdSN = next
		next++
		mu.Unlock()
		if op == 0x28 {
			i.rw(op, lba, len(data), nil)
		} else {
			i.rw(op, lba, len(data), data)
		}
	}
	var done sync.WaitGroup
	for n, i := range all {
		done.Go(func() {
			for round := range 40 {
				lba := uint32(n)*4096 + uint32(round)*16
				data := bytes.Repeat([]byte{byte(n*40 + round + 1)}, 8192)
				send(i, 0x2a, lba, data)
				if a := i.must(pdu.OpSCSIResponse); a.Header[3] != 0 {
					t.Errorf("status %#x", a.Header[3])
				}
				send(i, 0x28, lba, data)
				if got := i.readData(); !bytes.Equal(got, data) {
					t.Errorf("connection %d, round %d: read something else", n, round)
				}
				if n == 3 {
					if round%2 == 0 {
						_ = i.nc.Close()
					}
					j, err := i.more(p, i.cid)
					if err != nil {
						t.Error(err)
						return
					}
					i = j
				}
			}
		})
	}
	done.Wait()
	if s := p.Stats(); s.Panics != 0 || s.ProtocolErrors != 0 || len(r.Sessions()) != 1 {
		t.Errorf("%+v", s)
	}
	all[0].cmdSN = next
	all[0].logout()
	eventually(t, "the session ends", func() bool { return p.Stats().Conns == 0 && p.Stats().MemoryUsed == 0 })
}

// pong answers the NOP-In that comes next, and so acknowledges what came before.
func (i *initiator) pong() {
	i.t.Helper()
	i.answer(i.must(pdu.OpNOPIn))
}

// answer answers a NOP-In.
func (i *initiator) answer(a answer) {
	i.t.Helper()
	h := pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: a.TTT(), InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: pdu.StatSN(binary.BigEndian.Uint32(a.Header[24:]))}}
	i.write(h.AppendHeader(nil, 0), nil)
}

// TestResponseFence resets a logical unit on one connection while the answer of a command on the other one is not
// acknowledged: the answer to the reset comes after that.
func TestResponseFence(t *testing.T) {
	t.Parallel() // it waits most of the time
	p, _, _ := testServer(t, nil)
	a := dial(t, p)
	if err := a.login(testInitiator, 1, "MaxConnections=2", "TaskReporting=ResponseFence"); err != nil {
		t.Fatal(err)
	}
	a.ready()
	b, err := a.more(p, 1)
	if err != nil {
		t.Fatal(err)
	}
	sn := a.cmdSN
	b.read1(sn, 0)
	b.readData()
	h := pdu.TMFRequest{Immediate: true, Function: pdu.TMFLogicalUnitReset, ITT: 5000, InitiatorSNs: pdu.InitiatorSNs{CmdSN: sn + 1}}
	a.write(h.AppendHeader(nil, 0), nil)
	_ = a.nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if c, err := a.in.ReadByte(); err == nil {
		t.Fatalf("opcode %#x before the initiator had what was sent on the other connection", c)
	}
	b.read1(sn+1, 0) // finds the unit attention, which waits until the initiator has the answer to the reset
	b.pong()
	if r := a.must(pdu.OpTMFResponse); r.Header[2] != 0 {
		t.Errorf("result %d", r.Header[2])
	}
	a.pong()
	if r := b.must(pdu.OpSCSIResponse); r.data[14] != 0x29 || r.data[15] != 3 {
		t.Errorf("sense %x", r.data)
	}
	a.cmdSN = sn + 2
	a.logout()
}
