package portal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSize = 64 << 20

// testServer is a portal with one LUN of testSize bytes; change may be nil.
func testServer(t testing.TB, change func(*Config)) (*Portal, *target.Registry, *mediums) {
	t.Helper()
	cfg := Default()
	cfg.Addresses = []string{"127.0.0.1:0"}
	cfg.MemoryMax = 256 << 20
	if change != nil {
		change(&cfg)
	}
	m := &mediums{disks: map[uint64]*disk{testVolume: newDisk(testSize)}}
	p, r := serverOf(t, cfg, m, func(addr string) target.Config { return exported(addr, testSize, 512) })
	return p, r, m
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 1000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: never", what)
}

func random(n int) []byte {
	b := make([]byte, n)
	x := uint32(n)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// TestReadWrite moves data of many sizes, with immediate data and R2Ts, with and without digests.
func TestReadWrite(t *testing.T) {
	for _, digest := range []bool{false, true} {
		t.Run(fmt.Sprintf("digest %v", digest), func(t *testing.T) {
			p, _, m := testServer(t, nil)
			i := dial(t, p)
			keys := []string{}
			if digest {
				keys = []string{"HeaderDigest=CRC32C", "DataDigest=CRC32C"}
			}
			if err := i.login(testInitiator, 1, keys...); err != nil {
				t.Fatal(err)
			}
			i.digest = digest
			i.ready()
			for n, size := range []int{512, 4096, 65536, 66048, 1 << 20, 3 << 20} {
				data := random(size)
				lba := uint32(n * 8192)
				itt := i.rw(0x2a, lba, size, data[:min(size, 65536)])
				for {
					a, err := i.read()
					if err != nil {
						t.Fatal(err)
					}
					if a.Opcode() == pdu.OpSCSIResponse {
						if a.Header[3] != 0 || a.ITT() != itt {
							t.Fatalf("size %d: status %#x", size, a.Header[3])
						}
						break
					}
					i.answerR2T(a, data)
				}
				if !m.disks[testVolume].holds(int64(lba)*512, data) {
					t.Fatalf("size %d: the medium differs", size)
				}
				i.rw(0x28, lba, size, nil)
				if got := i.readData(); !bytes.Equal(got, data) {
					t.Fatalf("size %d: read %d bytes that differ", size, len(got))
				}
			}
			i.logout()
		})
	}
}

// answerR2T sends what an R2T asks for, 64 KiB at a time.
func (i *initiator) answerR2T(a answer, data []byte) {
	i.t.Helper()
	r, err := pdu.ParseR2T(&a.Header, nil, a.data)
	if err != nil {
		i.t.Fatal(err)
	}
	end := int(r.BufferOffset + r.DesiredDataTransferLength)
	for off, sn := int(r.BufferOffset), pdu.DataSN(0); off < end; sn++ {
		n := min(65536, end-off)
		h := pdu.DataOut{Final: off+n == end, LUN: r.LUN, ITT: r.ITT, TTT: r.TTT, DataSN: sn, BufferOffset: uint32(off)}
		i.write(h.AppendHeader(nil, n), data[off:off+n])
		off += n
	}
}

// readData gathers the Data-In PDUs of one command up to the one with its status.
func (i *initiator) readData() []byte {
	i.t.Helper()
	var out []byte
	for {
		a := i.must(pdu.OpDataIn)
		d, err := pdu.ParseDataIn(&a.Header, nil, a.data)
		if err != nil || int(d.BufferOffset) != len(out) {
			i.t.Fatalf("offset %d after %d bytes: %v", d.BufferOffset, len(out), err)
		}
		out = append(out, d.Data...)
		if d.HasStatus {
			return out
		}
	}
}

// TestReinstatement logs in twice with one name: the first session is closed and its running write is fenced before the
// second login is answered.
func TestReinstatement(t *testing.T) {
	p, r, m := testServer(t, nil)
	gate := make(chan struct{})
	m.disks[testVolume].hold.Store(&gate)
	a := dial(t, p)
	if err := a.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	a.ready()
	a.rw(0x2a, 0, 512, random(512))
	eventually(t, "write", func() bool { return m.disks[testVolume].calls.Load() == 1 })
	b := dial(t, p)
	if err := b.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	if got := m.noted(); len(got) != 1 || got[0] != "abort 7 "+testInitiator {
		t.Errorf("notes %q", got)
	}
	a.closed()
	m.disks[testVolume].hold.Store(nil)
	b.itt++
	h := pdu.SCSICommand{Final: true, ITT: b.itt, InitiatorSNs: b.sns()}
	b.write(h.AppendHeader(nil, 0), nil)
	if x := b.must(pdu.OpSCSIResponse); len(x.data) < 16 || x.data[4]&15 != 6 || x.data[14] != 0x29 || x.data[15] != 7 {
		t.Errorf("sense %x, expected I_T nexus loss", x.data)
	}
	c := dial(t, p)
	if err := c.login(testInitiator, 2); err != nil { // another ISID is another session
		t.Fatal(err)
	}
	if n := len(r.Sessions()); n != 2 {
		t.Errorf("%d sessions", n)
	}
	b.ready()
	b.logout()
	c.logout()
}

// TestAbort aborts a write that the medium does not finish: the answer comes at once.
func TestAbort(t *testing.T) {
	p, _, m := testServer(t, nil)
	gate := make(chan struct{})
	m.disks[testVolume].hold.Store(&gate)
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	i.ready()
	sn := i.cmdSN
	itt := i.rw(0x2a, 0, 512, random(512))
	eventually(t, "write", func() bool { return m.disks[testVolume].calls.Load() == 1 })
	h := pdu.TMFRequest{
		Immediate: true, Function: pdu.TMFAbortTask, ITT: 5000, ReferencedTaskTag: itt, RefCmdSN: sn,
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat},
	}
	i.write(h.AppendHeader(nil, 0), nil)
	if a := i.must(pdu.OpTMFResponse); a.Header[2] != 0 {
		t.Errorf("result %d", a.Header[2])
	}
	if got := m.noted(); len(got) != 1 {
		t.Errorf("notes %q", got)
	}
	i.ready()
	i.logout()
}

// TestTwoNexuses resets a logical unit under another session's running write.
func TestTwoNexuses(t *testing.T) {
	p, _, m := testServer(t, nil)
	gate := make(chan struct{})
	m.disks[testVolume].hold.Store(&gate)
	a, b := dial(t, p), dial(t, p)
	for n, i := range []*initiator{a, b} {
		if err := i.login(fmt.Sprint(testInitiator, n), 1); err != nil {
			t.Fatal(err)
		}
		i.ready()
	}
	a.rw(0x2a, 0, 512, random(512))
	eventually(t, "write", func() bool { return m.disks[testVolume].calls.Load() == 1 })
	h := pdu.TMFRequest{Immediate: true, Function: pdu.TMFLogicalUnitReset, ITT: 5000, InitiatorSNs: pdu.InitiatorSNs{CmdSN: b.cmdSN}}
	b.write(h.AppendHeader(nil, 0), nil)
	b.must(pdu.OpTMFResponse)
	if got := m.noted(); len(got) == 0 || got[0] != "abort 7 "+testInitiator+"0" {
		t.Errorf("notes %q", got)
	}
	eventually(t, "abort", func() bool { return p.Stats().Session.Aborted == 1 })
	a.ready() // its first answer is the unit attention, and no status of the write comes
	a.logout()
	b.logout()
}

// TestApply changes the configuration under a live session.
func TestApply(t *testing.T) {
	p, r, _ := testServer(t, nil)
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	i.ready()
	sense := func() string {
		i.itt++
		h := pdu.SCSICommand{Final: true, ITT: i.itt, InitiatorSNs: i.sns()}
		i.write(h.AppendHeader(nil, 0), nil)
		a := i.must(pdu.OpSCSIResponse)
		if len(a.data) < 16 {
			return ""
		}
		return fmt.Sprintf("%02x/%02x/%02x", a.data[4]&15, a.data[14], a.data[15])
	}
	c := exported("x:1", 2*testSize, 512)
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	if got := sense(); got != "06/2a/09" {
		t.Errorf("after growing: %s", got)
	}
	c.Targets[0].LUNs = append(c.Targets[0].LUNs, target.LUN{Number: 1, Volume: testVolume})
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	if a := i.must(pdu.OpAsyncMessage); a.Header[36] != byte(pdu.AsyncSCSI) || a.data[14] != 0x3f || a.data[15] != 0x0e {
		t.Errorf("news: event %d %x", a.Header[36], a.data)
	}
	if got := sense(); got != "06/3f/0e" {
		t.Errorf("after mapping: %s", got)
	}
	if err := r.Apply(exported("x:1", testSize, 512)); !errors.Is(err, target.ErrShrink) {
		t.Errorf("shrinking: %v", err)
	}
	if err := r.Apply(exported("x:1", 2*testSize, 512, target.Access{Initiator: "iqn.2026-11.dev.other:x"})); err != nil {
		t.Fatal(err)
	}
	i.closed()
	j := dial(t, p)
	if err := j.login(testInitiator, 1); err == nil || !strings.Contains(err.Error(), "0202") {
		t.Errorf("login of a denied initiator: %v", err)
	}
	eventually(t, "sessions end", func() bool { return len(r.Sessions()) == 0 })
}

// TestUnmapInFlight takes a LUN away under a running write: the write ends with a status, and a command on another LUN of
// the session, which runs at that time, is not disturbed.
func TestUnmapInFlight(t *testing.T) {
	p, r, m := testServer(t, nil)
	c := exported("x:1", testSize, 512)
	c.Targets[0].LUNs = append(c.Targets[0].LUNs, target.LUN{Number: 1, Volume: testVolume})
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	i.ready()
	i.lun = pdu.LUNOf(1)
	i.rw(0x28, 0, 512, nil) // its unit attention
	i.must(pdu.OpSCSIResponse)
	gate := make(chan struct{})
	m.disks[testVolume].hold.Store(&gate)
	gone := i.rw(0x2a, 0, 512, random(512))
	i.lun = pdu.LUN{}
	stays := i.rw(0x2a, 8, 512, random(512))
	eventually(t, "writes", func() bool { return m.disks[testVolume].calls.Load() == 2 })
	if err := r.Apply(exported("x:1", testSize, 512)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // in either order
		a, err := i.read()
		switch {
		case err != nil:
			t.Fatal(err)
		case a.Opcode() == pdu.OpAsyncMessage && a.Header[36] == byte(pdu.AsyncSCSI):
		case a.Opcode() != pdu.OpSCSIResponse || a.ITT() != gone || a.data[4]&15 != 5 || a.data[14] != 0x25:
			t.Errorf("%v %v: %x", a.Opcode(), a.ITT(), a.data)
		}
	}
	close(gate)
	if a := i.must(pdu.OpSCSIResponse); a.ITT() != stays || a.Header[3] != 0 {
		t.Errorf("%v: status %#x", a.ITT(), a.Header[3])
	}
	i.logout()
}

// TestClose closes a session that is idle.
func TestClose(t *testing.T) {
	p, r, _ := testServer(t, nil)
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	got := r.Sessions()
	if len(got) != 1 {
		t.Fatalf("%d sessions", len(got))
	}
	got[0].Close(target.ErrRemoved)
	<-got[0].Done()
	i.closed()
}

// TestLimits holds connections beyond each limit off.
func TestLimits(t *testing.T) {
	t.Parallel() // it waits most of the time
	p, _, _ := testServer(t, func(c *Config) { c.LoginsMax = 3; c.LoginTimeout = 500 * time.Millisecond })
	var kept []*initiator
	for range 3 {
		kept = append(kept, dial(t, p))
	}
	eventually(t, "logins", func() bool { return p.Stats().Logins == 3 })
	dial(t, p).closed()
	for _, i := range kept { // the login timeout
		i.closed()
	}
	eventually(t, "timeouts", func() bool { return p.Stats().LoginTimeouts == 3 && p.Stats().Conns == 0 })
	if s := p.Stats(); s.Refused != 1 || s.LoginsFailed != 3 {
		t.Errorf("%+v", s)
	}
}

// TestPing pings an initiator that is silent; one that answers stays, one that does not is dropped.
func TestPing(t *testing.T) {
	t.Parallel() // it waits most of the time
	p, _, _ := testServer(t, func(c *Config) { c.PingInterval = keepTick; c.PingTimeout = 600 * time.Millisecond })
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		a := i.must(pdu.OpNOPIn)
		h := pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: a.TTT(), InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN}}
		i.write(h.AppendHeader(nil, 0), nil)
	}
	i.closed()
	if n := p.Stats().PingTimeouts; n != 1 {
		t.Errorf("%d ping timeouts", n)
	}
}

// TestSilentReader sends commands and reads no answer: the target holds what it may and drops the initiator, but not
// because of a ping.
func TestSilentReader(t *testing.T) {
	t.Parallel() // it waits most of the time
	p, _, _ := testServer(t, func(c *Config) {
		c.PingInterval, c.PingTimeout, c.SendTimeout = keepTick, keepTick, 4*keepTick
	})
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	i.ready()
	for range 30 {
		i.rw(0x28, 0, 4<<20, nil)
	}
	eventually(t, "drop", func() bool { return p.Stats().SendTimeouts == 1 })
	if s := p.Stats(); s.PingTimeouts != 0 {
		t.Errorf("%d ping timeouts", s.PingTimeouts)
	}
	eventually(t, "memory", func() bool { return p.Stats().MemoryUsed == 0 })
}

// TestProtocolError checks that the Reject arrives before the connection closes, also when more is on its way.
func TestProtocolError(t *testing.T) {
	p, _, _ := testServer(t, nil)
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	h := pdu.DataOut{Final: true, ITT: pdu.ReservedTag, TTT: pdu.ReservedTag}
	i.write(h.AppendHeader(nil, 4096), make([]byte, 4096))
	i.write(make([]byte, 1<<16), nil)
	if a := i.must(pdu.OpReject); a.Header[2] != byte(pdu.RejectProtocolError) && a.Header[2] != byte(pdu.RejectInvalidPDUField) {
		t.Errorf("reason %d", a.Header[2])
	}
	i.closed()
}

// TestPanic has a medium panic: that session ends, the next one works.
func TestPanic(t *testing.T) {
	p, _, m := testServer(t, nil)
	m.disks[testVolume].data = m.disks[testVolume].data[:512] // reading beyond it panics
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	i.ready()
	i.rw(0x28, 1000, 512, nil)
	i.closed()
	if n := p.Stats().Panics; n != 1 {
		t.Errorf("%d panics", n)
	}
	j := dial(t, p)
	if err := j.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	j.ready()
	j.logout()
}

// TestGarbage throws bytes at the portal, before and after a login.
func TestGarbage(t *testing.T) {
	p, _, _ := testServer(t, func(c *Config) { c.LoginTimeout = time.Second })
	for n := range 20 {
		i := dial(t, p)
		_, _ = i.nc.Write(random(3000 + n))
		_ = i.nc.(*net.TCPConn).CloseWrite()
		i.closed()
		j := dial(t, p)
		if err := j.login(testInitiator, byte(n)); err != nil {
			t.Fatal(err)
		}
		_, _ = j.nc.Write(random(5000 + n))
		_ = j.nc.(*net.TCPConn).CloseWrite()
		j.closed()
	}
	if n := p.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

func TestOccupiedPort(t *testing.T) {
	p, r, _ := testServer(t, nil)
	cfg := Default()
	cfg.Addresses = []string{p.Addrs()[0].String()}
	_, err := New(cfg, r, testLog(t))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("%v", err)
	}
}

func TestDrainAndClose(t *testing.T) {
	p, _, _ := testServer(t, nil)
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		p.Drain(ctx)
		close(done)
	}()
	if a := i.must(pdu.OpAsyncMessage); a.Header[36] != byte(pdu.AsyncLogout) {
		t.Errorf("event %d", a.Header[36])
	}
	i.logout()
	<-done
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
	if ctx.Err() != nil {
		t.Error("Drain did not end when all had left")
	}
}

// TestDrainFinishes stops under an initiator that does not log out: what is in flight is answered whole, what it sends then
// is not done, and it is told before the connection closes.
func TestDrainFinishes(t *testing.T) {
	t.Parallel() // it waits most of the time
	for _, stalled := range []bool{false, true} {
		t.Run(fmt.Sprint("stalled ", stalled), func(t *testing.T) {
			t.Parallel()
			p, _, m := testServer(t, func(c *Config) {
				if c.FinishTimeout = 5 * time.Second; stalled {
					c.FinishTimeout = 300 * time.Millisecond
				}
			})
			i := dial(t, p)
			if err := i.login(testInitiator, 1); err != nil {
				t.Fatal(err)
			}
			i.ready()
			gate := make(chan struct{})
			m.disks[testVolume].hold.Store(&gate)
			itt := i.rw(0x2a, 0, 512, random(512))
			eventually(t, "write", func() bool { return m.disks[testVolume].calls.Load() == 1 })
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			drained := make(chan struct{})
			go func() {
				p.Drain(ctx)
				close(drained)
			}()
			if a := i.must(pdu.OpAsyncMessage); a.Header[36] != byte(pdu.AsyncLogout) {
				t.Errorf("event %d", a.Header[36])
			}
			<-ctx.Done()
			time.Sleep(50 * time.Millisecond)
			i.rw(0x2a, 8, 512, random(512)) // too late
			if !stalled {
				close(gate)
				if a := i.must(pdu.OpSCSIResponse); a.ITT() != itt || a.Header[3] != 0 {
					t.Errorf("answer to %v: status %#x", a.ITT(), a.Header[3])
				}
			}
			<-drained
			closing, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			closed := make(chan error, 1)
			go func() { closed <- p.Close(closing) }()
			if a := i.must(pdu.OpAsyncMessage); a.Header[36] != byte(pdu.AsyncDropSession) {
				t.Errorf("event %d", a.Header[36])
			}
			i.closed()
			if err := <-closed; err != nil {
				t.Error(err)
			}
			if n, fenced := m.disks[testVolume].calls.Load(), len(m.noted()); n != 1 || (fenced == 1) != stalled {
				t.Errorf("%d writes reached the medium, %d aborts", n, fenced)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"address":  func(c *Config) { c.Addresses = []string{"nowhere"} },
		"none":     func(c *Config) { c.Addresses = nil },
		"group":    func(c *Config) { c.Port.Group = 0 },
		"window":   func(c *Config) { c.Window = 1 },
		"memory":   func(c *Config) { c.MemoryMax = 1 << 20 },
		"conns":    func(c *Config) { c.Login.MaxConnections = 9 },
		"recovery": func(c *Config) { c.Login.ErrorRecoveryLevel = 1 },
	} {
		c := Default()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
