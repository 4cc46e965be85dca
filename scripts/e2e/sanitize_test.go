//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// sanitizing tells whether a command ended with SANITIZE IN PROGRESS.
func sanitizing(err error) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Key == 0x02 && s.ASC == 0x04 && s.ASCQ == 0x1B
}

// TestSanitizeIsTheClusters overwrites a volume through one gateway. The other one refuses commands from the answer on. The first
// gateway hangs, the other one goes on, and in the end all blocks have the pattern. When the first one wakes up it writes nothing
// over what hosts have written since.
func TestSanitizeIsTheClusters(t *testing.T) {
	cl := startCluster(t, cluster.Options{Gateways: 2})
	awaitHealthy(t, cl, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	const size, lun = 160 << 20, 9
	admin(t, cl, "volume", "create", "scratch", "--size", "160MiB")
	admin(t, cl, "target", "map", cl.Target, "--lun", "9", "--volume", "scratch")
	on := func(portal, name string) *initiator.Session {
		s, err := initiator.Dial(ctx, initiator.Config{
			Portal: portal, Target: cl.Target, LUN: lun, Name: "iqn.2026-11.dev.ashlar.test:" + name,
		})
		must(t, err)
		t.Cleanup(s.Close)
		return s
	}
	a, b := on(cl.Portals[0], "sanitizes"), on(cl.Portals[1], "waits")
	must(t, a.Ready(ctx))
	must(t, b.Ready(ctx))
	_, length, err := b.Capacity(ctx)
	must(t, err)
	must(t, b.Write(ctx, 7, length, bytes.Repeat([]byte{1}, 4096)))

	order := &initiator.Command{Out: []byte{1, 0, 0, 1, 0x5A}}
	order.CDB[0], order.CDB[1] = 0x48, 0x80|0x01 // SANITIZE, OVERWRITE, IMMED
	binary.BigEndian.PutUint16(order.CDB[7:], uint16(len(order.Out)))
	_, err = a.Do(ctx, order)
	must(t, err)
	for name, f := range map[string]func() error{
		"TEST UNIT READY": func() error { _, err := b.Do(ctx, &initiator.Command{}); return err },
		"WRITE":           func() error { return b.Write(ctx, 7, length, bytes.Repeat([]byte{2}, 4096)) },
		"READ":            func() error { return b.Read(ctx, 7, length, make([]byte, 4096)) },
	} {
		if err := f(); !sanitizing(err) {
			t.Errorf("%s through the other gateway: %v", name, err)
		}
	}
	time.Sleep(2500 * time.Millisecond)
	must(t, cl.Signal("gateway-1", syscall.SIGSTOP))
	defer cl.Signal("gateway-1", syscall.SIGCONT) //nolint:errcheck // it goes on below
	if out := admin(t, cl, "volume", "show", "scratch"); !strings.Contains(out, "overwrites 1 times") {
		t.Errorf("volume show says nothing of it:\n%s", out)
	}
	began := time.Now()
	for {
		_, err := b.Do(ctx, &initiator.Command{})
		if err == nil {
			break
		}
		if !initiator.Retryable(err) { // a path that went is told too
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(began)
	t.Logf("complete %v after its gateway was stopped", took.Round(100*time.Millisecond))
	if took < 5*time.Second {
		t.Error("it was complete before anybody can have gone on with it")
	}
	want, got := bytes.Repeat([]byte{0x5A}, 1<<20), make([]byte, 1<<20)
	for off := 0; off < size; off += len(got) {
		must(t, b.Read(ctx, uint64(off/length), length, got))
		if !bytes.Equal(got, want) {
			t.Fatalf("between %d and %d bytes there are others than the pattern", off, off+len(got))
		}
	}
	if out := admin(t, cl, "volume", "show", "scratch"); strings.Contains(out, "Sanitize") {
		t.Errorf("volume show after the end:\n%s", out)
	}
	mine := bytes.Repeat([]byte{0xB}, 1<<20)
	for off := 0; off < size; off += len(mine) {
		must(t, b.Write(ctx, uint64(off/length), length, mine))
	}
	must(t, cl.Signal("gateway-1", syscall.SIGCONT))
	time.Sleep(3 * time.Second)
	for off := 0; off < size; off += len(got) {
		if err := b.Read(ctx, uint64(off/length), length, got); initiator.Retryable(err) {
			must(t, b.Read(ctx, uint64(off/length), length, got))
		} else {
			must(t, err)
		}
		if !bytes.Equal(got, mine) {
			t.Fatalf("between %d and %d bytes something was written by the gateway that woke up", off, off+len(got))
		}
	}
}
