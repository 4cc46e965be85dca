package portal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// rawLogin is the header of a first Login Request with a data segment of length bytes.
func rawLogin(length uint32) []byte {
	req := pdu.LoginRequest{
		Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ISID: pdu.ISID{0x80, 5: 1}, ITT: 1,
	}
	h := req.AppendHeader(nil, 0)
	binary.BigEndian.PutUint32(h[4:], length&0xffffff)
	return h
}

// TestHostileLoginLengths is for the line "length arithmetic" (CVE-2026-53176, CVE-2026-90413): lengths that lie. The
// connection ends, and nothing of the declared size is allocated.
func TestHostileLoginLengths(t *testing.T) {
	p := guarded(t, func(c *Config) { c.LoginTimeout = 500 * time.Millisecond }, nil)
	ahs := rawLogin(0)
	ahs[4] = 255 // TotalAHSLength, which a Login Request has not
	for _, c := range []struct {
		name string
		sent []byte
		wait bool // for the login timeout
	}{
		{"more declared than sent", append(rawLogin(8192), make([]byte, 100)...), true},
		{"more declared than allowed", rawLogin(8193), false},
		{"the most that can be declared", rawLogin(1<<24 - 1), false},
		{"an AHS that does not come", ahs, false},
		{"half a header", rawLogin(0)[:20], true},
		{"a login without text", rawLogin(0), false},
		{"no login at all", append([]byte{0x40 | 0x01}, make([]byte, 47)...), false},
		{"an opcode that does not exist", append([]byte{0x3f}, make([]byte, 47)...), false},
		{"text, not iSCSI", []byte(strings.Repeat("GET / HTTP/1.1\r\n", 8)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			i := dial(t, p)
			i.write(c.sent, nil)
			since := time.Now()
			i.closed()
			if d := time.Since(since); !c.wait && d > 400*time.Millisecond {
				t.Errorf("closed after %v", d)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
		})
	}
	eventually(t, "connections end", func() bool { return p.Stats().Conns == 0 })
	if n := p.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

// TestHostileLoginRace is for the line "teardown races" (CVE-2022-50350, CVE-2026-23193, CVE-2026-23216): many connections log
// in under one name and ISID at the same time, and go away in the middle of it. Run it with -race.
func TestHostileLoginRace(t *testing.T) {
	p, r, _ := testServer(t, nil)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for round := range 12 {
				nc, err := net.Dial("tcp", p.Addrs()[0].String())
				if err != nil {
					t.Error(err)
					return
				}
				text := loginKeys(testInitiator, testTarget)
				h := rawLogin(uint32(len(text)))
				wire := append(h, pdu.AppendTrailer(text, false, text)...)
				switch (n + round) % 4 {
				case 0: // half a request
					_, _ = nc.Write(wire[:len(wire)/2])
				case 1: // gone before the answer
					_, _ = nc.Write(wire)
				case 2: // gone after the answer began
					_, _ = nc.Write(wire)
					_, _ = io.ReadFull(nc, make([]byte, 8))
				default: // a command right behind the login
					cmd := pdu.SCSICommand{Final: true, Attr: pdu.AttrSimple, ITT: 2}
					_, _ = nc.Write(cmd.AppendHeader(wire, 0))
					_ = nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					_, _ = io.Copy(io.Discard, nc)
				}
				_ = nc.Close()
			}
		})
	}
	all.Wait()
	eventually(t, "everything ends", func() bool { return p.Stats().Conns == 0 && len(r.Sessions()) == 0 })
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	i.ready()
	if n := p.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

// TestHostileTextBuffers is for the line "buffers" (CVE-2023-53676, CVE-2024-45063): many connections are sent lists of targets
// at the same time; each gets its own list and no byte more.
func TestHostileTextBuffers(t *testing.T) {
	const hosts = 12
	name := func(n int) string { return fmt.Sprintf("%s.%02d", testInitiator, n) }
	list := func(n int) string { return fmt.Sprintf("%s.for-%02d.%s", testTarget, n, strings.Repeat("x", n)) }
	p := guarded(t, nil, func(c *target.Config) {
		for n := range hosts {
			for k := range 3 {
				c.Targets = append(c.Targets, target.Target{
					Name: fmt.Sprint(list(n), k), Access: []target.Access{{Initiator: name(n)}},
				})
			}
		}
	})
	addr := p.Addrs()[0].String()
	var all sync.WaitGroup
	for n := range hosts {
		want := fmt.Sprintf("TargetName=%s\x00TargetAddress=%s,1\x00", testTarget, addr)
		for k := range 3 {
			want += fmt.Sprintf("TargetName=%s%d\x00TargetAddress=%s,1\x00", list(n), k, addr)
		}
		all.Go(func() {
			for range 8 {
				got, err := discover(t, p, name(n))
				if err != nil || !bytes.Equal(got, []byte(want)) {
					t.Errorf("%s got %q, %v; want %q", name(n), got, err, want)
					return
				}
			}
		})
	}
	all.Wait()
}

// discover opens a discovery session with small segments, and returns what SendTargets=All lists.
func discover(t testing.TB, p *Portal, name string) ([]byte, error) {
	i := dial(t, p)
	defer i.nc.Close() //nolint:errcheck // the test is over with it
	text := []byte("InitiatorName=" + name + "\x00SessionType=Discovery\x00MaxRecvDataSegmentLength=512\x00")
	req := pdu.LoginRequest{
		Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ISID: pdu.ISID{0x80}, ITT: 1, Data: text,
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat},
	}
	i.write(req.AppendHeader(nil, len(text)), text)
	a, err := i.read()
	if err != nil {
		return nil, err
	}
	resp, err := pdu.ParseLoginResponse(&a.Header, nil, a.data)
	if err != nil || !resp.Transit {
		return nil, fmt.Errorf("login: %+v, %w", resp, err)
	}
	i.stat = resp.StatSN.Next()
	var got []byte
	ask := pdu.TextRequest{Final: true, Immediate: true, ITT: 7, TTT: pdu.ReservedTag}
	for data := []byte("SendTargets=All\x00"); ; data = nil {
		ask.InitiatorSNs = pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat}
		i.write(ask.AppendHeader(nil, len(data)), data)
		if a, err = i.read(); err != nil {
			return nil, err
		}
		r, err := pdu.ParseTextResponse(&a.Header, nil, a.data)
		if err != nil {
			return nil, err
		}
		if len(r.Data) > 512 {
			return nil, fmt.Errorf("a segment of %d bytes", len(r.Data))
		}
		i.stat, got = r.StatSN.Next(), append(got, r.Data...)
		if r.Final {
			return got, nil
		}
		ask.TTT = r.TTT
	}
}

// TestDiscoverySession sends what a discovery session has no use for.
func TestDiscoverySession(t *testing.T) {
	p := guarded(t, nil, nil)
	for name, h := range map[string][]byte{
		"a command": (&pdu.SCSICommand{Final: true, Attr: pdu.AttrSimple, ITT: 5}).AppendHeader(nil, 0),
		"a reset":   (&pdu.TMFRequest{Immediate: true, Function: pdu.TMFLogicalUnitReset, ITT: 5}).AppendHeader(nil, 0),
	} {
		i := dial(t, p)
		text := []byte("InitiatorName=" + testInitiator + ".other\x00SessionType=Discovery\x00")
		req := pdu.LoginRequest{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ISID: pdu.ISID{0x80}, ITT: 1, Data: text}
		i.write(req.AppendHeader(nil, len(text)), text)
		i.must(pdu.OpLoginResponse)
		i.write(h, nil)
		a, err := i.read()
		if err != nil || a.Opcode() != pdu.OpReject {
			t.Errorf("%s: %v, %v", name, a.Opcode(), err)
		}
	}
	if _, err := discover(t, p, testInitiator); err == nil { // it needs CHAP for one of its targets, and gives none
		t.Error("a discovery without the proof that is needed")
	}
	if s := p.Stats(); s.Panics != 0 {
		t.Errorf("%+v", s)
	}
}
