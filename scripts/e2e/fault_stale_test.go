//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
)

// TestFaultStaleFirstCommand: a gateway hangs between the login of a host and the first command that touches the medium, which
// is a write and waits in the gateway's socket. The host gives it up, moves to the other gateway and writes there. When the
// first one goes on, it has no epoch yet, and must not take one for that write: not if the connection is closed by then, and
// not if nobody is there any more who could close it.
func TestFaultStaleFirstCommand(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	for name, closes := range map[string]bool{"closed": true, "silent": false} {
		t.Run(name, func(t *testing.T) { staleFirstCommand(t, cl, "iqn.2026-11.dev.ashlar.test:stale-"+name, closes) })
	}
}

// staleHost is a host that logs in at the gateways of a cluster, and writes and reads one block of 4096 bytes.
type staleHost struct {
	t    *testing.T
	cl   *cluster.Cluster
	name string
}

func (s staleHost) login(portal int, isid byte) *wire.Host {
	s.t.Helper()
	h, err := wire.Open(s.t.Context(), s.cl.Portals[portal], wire.Login{
		Initiator: s.name, Target: s.cl.Target, ISID: [6]byte{0x80, 1, 2, 3, 0, isid},
	})
	must(s.t, err)
	s.t.Cleanup(h.Close)
	h.LUN = wire.LUN(s.cl.LUN)
	must(s.t, h.Ready())
	return h
}

// staleLength is what is written and read at once, in bytes.
const staleLength = 4096

// staleCDB is READ(10) or WRITE(10).
func staleCDB(op byte, lba uint32) []byte {
	cdb := make([]byte, 10)
	cdb[0] = op
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], staleLength/512)
	return cdb
}

func (s staleHost) do(h *wire.Host, cdb []byte, in int, out []byte) wire.Result {
	s.t.Helper()
	r, err := h.Do(cdb, in, out)
	must(s.t, err)
	if r.Sense.Key == 6 { // the states of the gateways as paths change while one of them hangs
		must(s.t, h.Ready())
		r, err = h.Do(cdb, in, out)
		must(s.t, err)
	}
	must(s.t, r.Err())
	return r
}

func (s staleHost) write(h *wire.Host, lba uint32, fill byte) {
	s.t.Helper()
	s.do(h, staleCDB(0x2a, lba), 0, bytes.Repeat([]byte{fill}, staleLength))
}

func (s staleHost) read(when string, h *wire.Host, lba uint32, want byte) {
	s.t.Helper()
	r := s.do(h, staleCDB(0x28, lba), staleLength, nil)
	if !bytes.Equal(r.Data, bytes.Repeat([]byte{want}, staleLength)) {
		s.t.Fatalf("%s: read %#x, want %#x", when, r.Data[0], want)
	}
}

// leave has h send a write of the block to a gateway that hangs.
func (s staleHost) leave(h *wire.Host, lba uint32, fill byte) {
	s.t.Helper()
	_, err := h.Start(staleCDB(0x2a, lba), 0, bytes.Repeat([]byte{fill}, staleLength))
	must(s.t, err)
	if p, err := h.RecvWithin(100 * time.Millisecond); !errors.Is(err, wire.ErrQuiet) {
		s.t.Fatalf("opcode %#x from a gateway that hangs: %v", p.Opcode(), err)
	}
}

// hang stops gateway 1 until the test goes on with it, or ends.
func hang(t *testing.T, cl *cluster.Cluster) {
	t.Helper()
	must(t, cl.Signal("gateway-1", syscall.SIGSTOP))
	t.Cleanup(func() { _ = cl.Signal("gateway-1", syscall.SIGCONT) })
	time.Sleep(200 * time.Millisecond) // until all its threads have stopped
}

func staleFirstCommand(t *testing.T, cl *cluster.Cluster, name string, closes bool) {
	const lba = 4096
	s := staleHost{t, cl, name}
	old := s.login(0, 1)
	hang(t, cl)
	s.leave(old, lba, 0xA1)
	moved := s.login(1, 1)
	s.write(moved, lba, 0xB2)
	if closes {
		old.Close()
	}
	must(t, cl.Signal("gateway-1", syscall.SIGCONT))
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		s.read("at the other gateway", moved, lba, 0xB2)
	}
	old.Close()
	back := s.login(0, 2)
	s.read("back at the first gateway", back, lba, 0xB2)
	s.write(back, lba, 0xC3)
	s.read("in the end", back, lba, 0xC3)
}

// TestFaultStaleAfterReturn: a host uses one gateway, another one, and the first one again, which then hangs with a write in its
// socket. It goes on at the second, where it has kept its session, with blocks whose copysets have not seen that the path had gone
// back. So nothing there refuses the older epoch, nor the newer one of the first gateway when that goes on: the write must not be
// served, because the host does not answer for it any more.
func TestFaultStaleAfterReturn(t *testing.T) {
	const chunks = 16 << 20 / 512
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	for name, closes := range map[string]bool{"closed": true, "silent": false} {
		t.Run(name, func(t *testing.T) {
			s := staleHost{t, cl, "iqn.2026-11.dev.ashlar.test:return-" + name}
			first, second := s.login(0, 1), s.login(1, 1)
			const here, there = 8 * chunks, 9 * chunks // in two copysets
			for _, lba := range []uint32{here, there} {
				s.write(first, lba, 0x01)
				s.write(second, lba, 0x02)
			}
			s.write(first, here, 0x03)
			hang(t, cl)
			s.leave(first, there, 0xA1)
			s.write(second, there, 0xB2)
			time.Sleep(1500 * time.Millisecond)
			if closes {
				first.Close()
			}
			must(t, cl.Signal("gateway-1", syscall.SIGCONT))
			for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
				s.read("at the other gateway", second, there, 0xB2)
			}
			first.Close()
			s.read("in the end", s.login(0, 2), there, 0xB2)
		})
	}
}
