package portal

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// halfway is a connection of p whose login was granted, and not answered yet: of a new session, or of the one with number
// tsih.
func halfway(t *testing.T, p *Portal, tsih pdu.TSIH, cid pdu.CID) (*conn, *runner, *target.Session) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // has no more to give
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	c := newConn(p, far.(*net.TCPConn), "127.0.0.1")
	env := newLoginEnv(c)
	params := login.Default()
	params.MaxConnections = 4
	g, err := env.Admit(login.Admission{
		InitiatorName: testInitiator, TargetName: testTarget, ISID: pdu.ISID{0x80, 5: 1}, TSIH: tsih, CID: cid, Params: params,
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.enterSession(env.Env, &login.Result{
		InitiatorName: testInitiator, TargetName: testTarget, TSIH: g.TSIH, CID: cid, Params: params,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, r, env.Admitted()
}

// TestUndo has the first connection of a session fail before its login is answered, when another one has joined the session:
// the session goes on, and ends with that one.
func TestUndo(t *testing.T) {
	p, registry, _ := testServer(t, nil)
	first, r, place := halfway(t, p, 0, 0)
	second, joined, none := halfway(t, p, place.TSIH(), 1)
	if joined != r || none != nil {
		t.Fatal("joined another session")
	}
	first.undo(r, place)
	if n := len(registry.Sessions()); n != 1 {
		t.Fatalf("%d sessions when the first connection has failed", n)
	}
	third, joined, _ := halfway(t, p, place.TSIH(), 2)
	if joined != r {
		t.Fatal("joined another session")
	}
	third.undo(joined, nil)
	second.undo(joined, nil)
	if n := len(registry.Sessions()); n != 0 || p.Stats().Sessions != 0 {
		t.Errorf("%d sessions in the end", n)
	}
}

// TestNumbersOfNoSession: the table knows a session before it has an engine, and knows it a while longer when it gets none.
func TestNumbersOfNoSession(t *testing.T) {
	r := &runner{}
	if exp, last := r.Numbers(); exp != 0 || last != 0 {
		t.Errorf("%d, %d", exp, last)
	}
}

// broken are mediums whose first fences panic: the one that a session ends with, and the one with which it is tried again.
type broken struct {
	*mediums
	fences chan struct{} // has a token for each of them; cap 2
}

func (b broken) Abort(volume uint64, initiator string) {
	select {
	case b.fences <- struct{}{}:
		panic("no fence today")
	default:
		b.mediums.Abort(volume, initiator)
	}
}

// TestPanicInTheEnd has the engine panic while it ends a session, with a write under way: the write is cancelled and fenced
// all the same, the session leaves nothing behind, and the next one works.
func TestPanicInTheEnd(t *testing.T) {
	for name, end := range map[string]func(i *initiator){
		"lost":    func(i *initiator) { _ = i.nc.Close() },
		"dropped": func(i *initiator) {},
	} {
		t.Run(name, func(t *testing.T) {
			m := broken{&mediums{disks: map[uint64]*disk{testVolume: newDisk(testSize)}}, make(chan struct{}, 2)}
			cfg := Default()
			cfg.Addresses = []string{"127.0.0.1:0"}
			p, r := serverOf(t, cfg, m, func(addr string) target.Config { return exported(addr, testSize, 512) })
			gate := make(chan struct{})
			m.disks[testVolume].hold.Store(&gate)
			i := dial(t, p)
			if err := i.login(testInitiator, 1); err != nil {
				t.Fatal(err)
			}
			i.ready()
			i.rw(0x2a, 0, 512, random(512))
			eventually(t, "write", func() bool { return m.disks[testVolume].calls.Load() == 1 })
			if end(i); name == "dropped" {
				for _, s := range r.Sessions() {
					s.Close(target.ErrRemoved)
				}
			}
			i.closed()
			eventually(t, "the session ends", func() bool { return p.Stats().Conns == 0 && len(r.Sessions()) == 0 })
			if got := m.noted(); len(got) == 0 || p.Stats().Panics != 2 {
				t.Errorf("fences %q, %d panics", got, p.Stats().Panics)
			}
			m.disks[testVolume].hold.Store(nil)
			j := dial(t, p)
			if err := j.login(testInitiator, 1); err != nil {
				t.Fatal(err)
			}
			j.ready()
			j.logout()
		})
	}
}

// watched are mediums that note with each fence whether the writes under way were cancelled.
type watched struct {
	*mediums
	m     *watchedDisk
	alive chan bool
}

func (w watched) Open(uint64, string) scsi.Backend { return w.m }

func (w watched) Abort(uint64, string) {
	alive := false
	for range w.m.writes {
		ctx := <-w.m.under
		alive = alive || ctx.Err() == nil
		w.m.under <- ctx
	}
	select {
	case w.alive <- alive:
	default:
	}
}

// watchedDisk has writes that last until they are cancelled.
type watchedDisk struct {
	scsi.Backend
	writes int // that are wanted
	under  chan context.Context
}

func (d *watchedDisk) Write(ctx context.Context, _ []byte, _ int64) error {
	d.under <- ctx
	<-ctx.Done()
	return ctx.Err()
}

// TestResetFencesWhatIsCancelled resets a logical unit under running writes of another session: when the fence comes, which
// is before the answer, they were cancelled. What is still wanted at a fence would be repeated after it.
func TestResetFencesWhatIsCancelled(t *testing.T) {
	const writes = 3
	d := &watchedDisk{newDisk(testSize), writes, make(chan context.Context, writes)}
	ms := watched{&mediums{}, d, make(chan bool, 1)}
	cfg := Default()
	cfg.Addresses = []string{"127.0.0.1:0"}
	p, _ := serverOf(t, cfg, ms, func(addr string) target.Config { return exported(addr, testSize, 512) })
	a, b := dial(t, p), dial(t, p)
	for n, i := range []*initiator{a, b} {
		if err := i.login(testInitiator, byte(n+1)); err != nil {
			t.Fatal(err)
		}
		i.ready()
	}
	for range writes {
		a.rw(0x2a, 0, 512, random(512))
	}
	eventually(t, "the writes run", func() bool { return len(d.under) == writes })
	h := pdu.TMFRequest{Immediate: true, Function: pdu.TMFLogicalUnitReset, ITT: 5000, InitiatorSNs: pdu.InitiatorSNs{CmdSN: b.cmdSN}}
	b.write(h.AppendHeader(nil, 0), nil)
	b.must(pdu.OpTMFResponse)
	select {
	case alive := <-ms.alive:
		if alive {
			t.Error("a write was still wanted when the fence came")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no fence")
	}
	eventually(t, "aborts", func() bool { return p.Stats().Session.Aborted == writes })
	a.ready() // no status of the writes comes
	a.logout()
	b.logout()
}
