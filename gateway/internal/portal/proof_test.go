package portal

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// proving is a medium whose commands come to a proof before they are served.
type proving struct {
	scsi.Backend
	proof atomic.Pointer[session.Proof]
	came  atomic.Int64
}

func (m *proving) Read(ctx context.Context, p []byte, off int64) error {
	m.came.Add(1)
	if err := m.proof.Load().Await(ctx); err != nil {
		return err
	}
	return m.Backend.Read(ctx, p, off)
}

func (m *proving) Write(ctx context.Context, p []byte, off int64) error {
	m.came.Add(1)
	if err := m.proof.Load().Await(ctx); err != nil {
		return err
	}
	return m.Backend.Write(ctx, p, off)
}

// provingMediums has the same medium for everybody.
type provingMediums struct {
	*mediums
	m *proving
}

func (m provingMediums) Open(uint64, string) scsi.Backend { return m.m }

// provingServer is a portal with such a medium.
func provingServer(t *testing.T, change func(*Config)) (*Portal, *proving, *disk) {
	t.Helper()
	d := newDisk(testSize)
	m := &proving{Backend: d}
	m.proof.Store(new(session.Proof))
	cfg := Default()
	cfg.Addresses = []string{"127.0.0.1:0"}
	if change != nil {
		change(&cfg)
	}
	ms := provingMediums{&mediums{disks: map[uint64]*disk{testVolume: d}}, m}
	p, _ := serverOf(t, cfg, ms, func(addr string) target.Config { return exported(addr, testSize, 512) })
	return p, m, d
}

// TestProof asks an initiator whether it still wants what it has sent: one ping for all commands of a connection, and none
// for what comes after it has answered.
func TestProof(t *testing.T) {
	p, m, d := provingServer(t, nil)
	all := several(t, p, 2)
	a, b := all[0], all[1]
	const commands = 8
	for n := range uint32(commands) {
		a.rw(0x2a, n*8, 512, random(512))
	}
	eventually(t, "all writes come to the medium", func() bool { return m.came.Load() == commands })
	if n := d.calls.Load(); n != 0 {
		t.Errorf("%d writes are served before the initiator has answered", n)
	}
	a.pong()
	for range commands {
		if r := a.must(pdu.OpSCSIResponse); r.Header[3] != 0 {
			t.Errorf("status %#x", r.Header[3])
		}
	}
	a.read1(a.cmdSN, 0)
	a.readData()
	b.read1(a.cmdSN, 0) // has been there since before the proof was asked for, and has said nothing
	b.pong()
	b.readData()
	a.cmdSN = b.cmdSN
	m.proof.Store(new(session.Proof))
	a.read1(a.cmdSN, 0)
	a.pong()
	a.readData()
	a.logout()
	if s := p.Stats(); s.Panics != 0 || s.ProtocolErrors != 0 {
		t.Errorf("%+v", s)
	}
}

// TestUnwanted gives commands up before the initiator is asked about them: they are not served. The reader of the connection
// goes on while they wait.
func TestUnwanted(t *testing.T) {
	abort := func(i *initiator) {
		h := pdu.TMFRequest{
			Immediate: true, Function: pdu.TMFAbortTask, ITT: 5000, ReferencedTaskTag: i.itt, RefCmdSN: i.cmdSN - 1,
			InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat},
		}
		ping := i.must(pdu.OpNOPIn)
		i.write(h.AppendHeader(nil, 0), nil)
		i.answer(ping)
		i.must(pdu.OpTMFResponse)
		i.logout()
	}
	for name, end := range map[string]func(*initiator){
		"aborted": abort,
		"logged out": func(i *initiator) {
			h := pdu.LogoutRequest{Immediate: true, ITT: 99999, InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat}}
			i.write(h.AppendHeader(nil, 0), nil)
			i.closed()
		},
		"gone":   func(i *initiator) { _ = i.nc.Close() },
		"silent": func(i *initiator) { i.closed() }, // until the ping's timeout
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, m, d := provingServer(t, func(c *Config) {
				if name == "silent" {
					c.PingTimeout = keepTick
				}
			})
			i := dial(t, p)
			if err := i.login(testInitiator, 1); err != nil {
				t.Fatal(err)
			}
			i.ready()
			i.rw(0x2a, 0, 512, random(512))
			eventually(t, "the write comes to the medium", func() bool { return m.came.Load() == 1 })
			end(i)
			eventually(t, "the session ends", func() bool { return p.Stats().Conns == 0 })
			if n := d.calls.Load(); n != 0 {
				t.Error("the write was served")
			}
			if s := p.Stats(); s.Session.Aborted != 1 || (s.PingTimeouts == 1) != (name == "silent") {
				t.Errorf("%+v", s)
			}
		})
	}
}
