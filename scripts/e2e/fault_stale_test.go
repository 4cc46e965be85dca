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

func staleFirstCommand(t *testing.T, cl *cluster.Cluster, name string, closes bool) {
	const lba, length = 4096, 4096
	stale, fresh, last := bytes.Repeat([]byte{0xA1}, length), bytes.Repeat([]byte{0xB2}, length), bytes.Repeat([]byte{0xC3}, length)
	host := func(portal int, isid byte) *wire.Host {
		t.Helper()
		h, err := wire.Open(t.Context(), cl.Portals[portal], wire.Login{
			Initiator: name, Target: cl.Target, ISID: [6]byte{0x80, 1, 2, 3, 0, isid},
		})
		must(t, err)
		t.Cleanup(h.Close)
		h.LUN = wire.LUN(cl.LUN)
		must(t, h.Ready())
		return h
	}
	rw := func(op byte) []byte {
		cdb := make([]byte, 10)
		cdb[0] = op
		binary.BigEndian.PutUint32(cdb[2:], lba)
		binary.BigEndian.PutUint16(cdb[7:], length/512)
		return cdb
	}
	do := func(h *wire.Host, op byte, in int, out []byte) wire.Result {
		t.Helper()
		r, err := h.Do(rw(op), in, out)
		must(t, err)
		if r.Sense.Key == 6 { // the states of the gateways as paths change while one of them hangs
			must(t, h.Ready())
			r, err = h.Do(rw(op), in, out)
			must(t, err)
		}
		must(t, r.Err())
		return r
	}
	write := func(h *wire.Host, data []byte) {
		t.Helper()
		do(h, 0x2a, 0, data)
	}
	read := func(when string, h *wire.Host, want []byte) {
		t.Helper()
		r := do(h, 0x28, length, nil)
		if !bytes.Equal(r.Data, want) {
			t.Fatalf("%s: read %#x, want %#x", when, r.Data[0], want[0])
		}
	}

	old := host(0, 1)
	must(t, cl.Signal("gateway-1", syscall.SIGSTOP))
	t.Cleanup(func() { _ = cl.Signal("gateway-1", syscall.SIGCONT) })
	time.Sleep(200 * time.Millisecond) // until all its threads have stopped
	_, err := old.Start(rw(0x2a), 0, stale)
	must(t, err)
	if p, err := old.RecvWithin(100 * time.Millisecond); !errors.Is(err, wire.ErrQuiet) {
		t.Fatalf("opcode %#x from a gateway that hangs: %v", p.Opcode(), err)
	}
	moved := host(1, 1)
	write(moved, fresh)
	if closes {
		old.Close()
	}
	must(t, cl.Signal("gateway-1", syscall.SIGCONT))
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		read("at the other gateway", moved, fresh)
	}
	old.Close()
	back := host(0, 2)
	read("back at the first gateway", back, fresh)
	write(back, last)
	read("in the end", back, last)
}
