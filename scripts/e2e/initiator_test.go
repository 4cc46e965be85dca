//go:build e2e

package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
	"github.com/ashlar-storage/ashlar/scripts/e2e/load"
)

// client is a client of a unit.
func client(u unit, name string) *load.Client {
	return load.NewClient(initiator.Config{
		Target: u.target, LUN: u.lun, Name: "iqn.2026-11.dev.ashlar.test:" + name,
	}, u.portal)
}

// TestInitiatorLoad runs the verified load without faults, with its connection closed under it a few times. Its
// first use is to show that the load and the initiator are right: it passes against tgtd.
func TestInitiatorLoad(t *testing.T) {
	u := newUnit(t, "128MiB")
	c := client(u, "load")
	defer c.Close()
	cfg := mixed
	cfg.Seed = uint64(time.Now().UnixNano())
	if u.cl == nil {
		zero(t, c, cfg)
	}
	l := load.New(c, cfg)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), seconds(t, 2))
		l.RunUntilCut(ctx)
		cancel()
		if err := l.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	rep := l.Report()
	t.Log(rep.String())
	if len(rep.Errors)+len(rep.Violations) > 0 {
		t.Errorf("errors %q, violations %q", rep.Errors, rep.Violations)
	}
	if rep.Writes < 100 || rep.Reads < 100 {
		t.Errorf("hardly any load: %s", rep.String())
	}
}

// zero clears the region of an oracle's unit, which other tests have written.
func zero(t *testing.T, c *load.Client, cfg load.Config) {
	t.Helper()
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lb := c.LogicalBlock()
	buf := make([]byte, 1<<20)
	for at := uint64(0); at < cfg.Blocks*load.BlockLen; at += uint64(len(buf)) {
		if err := s.Write(t.Context(), at/uint64(lb), lb, buf); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInitiatorReinstatement logs in twice under one name: the first session must be closed by the second.
func TestInitiatorReinstatement(t *testing.T) {
	u := newUnit(t, "64MiB")
	cfg := initiator.Config{Portal: u.portal, Target: u.target, LUN: u.lun, Name: "iqn.2026-11.dev.ashlar.test:twice"}
	first, err := initiator.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := first.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := initiator.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Done():
	case <-time.After(5 * time.Second):
		t.Error("the first session is still open 5 s after the second login with its ISID")
	}
}

// TestInitiatorSCSI checks commands that the tools of the host do not send: COMPARE AND WRITE, FUA-like sync,
// a LUN reset, and the answers to what is wrong.
func TestInitiatorSCSI(t *testing.T) {
	u := newUnit(t, "64MiB")
	c := client(u, "scsi")
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := c.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lb := c.LogicalBlock()
	zeroes, ones, twos := make([]byte, lb), make([]byte, lb), make([]byte, lb)
	for i := range lb {
		ones[i], twos[i] = 1, 2
	}
	steps := []struct {
		name string
		do   func() error
		want error
	}{
		{"write zeroes", func() error { return s.Write(ctx, 8, lb, zeroes) }, nil},
		{"compare and write", func() error { return s.CompareAndWrite(ctx, 8, zeroes, ones) }, nil},
		{"miscompare", func() error { return s.CompareAndWrite(ctx, 8, zeroes, twos) }, initiator.ErrMiscompare},
		{"compare and write again", func() error { return s.CompareAndWrite(ctx, 8, ones, twos) }, nil},
		{"sync", func() error { return s.Sync(ctx) }, nil},
		{"reset", func() error { return s.ResetLUN(ctx) }, nil},
		{"after the reset", func() error { return s.Ready(ctx) }, nil},
	}
	for i, st := range steps {
		if u.cl == nil && i >= 1 && i <= 3 {
			continue // tgtd has no COMPARE AND WRITE over a plain file
		}
		if err := st.do(); !errors.Is(err, st.want) {
			t.Fatalf("%s: got %v, want %v", st.name, err, st.want)
		}
	}
	got := make([]byte, lb)
	want := byte(2)
	if u.cl == nil {
		want = 0
	}
	if err := s.Read(ctx, 8, lb, got); err != nil || got[0] != want || got[lb-1] != want {
		t.Errorf("read: %v, byte %d, want %d", err, got[0], want)
	}
	blocks, _, err := s.Capacity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var st *initiator.StatusError
	if err := s.Read(ctx, blocks, lb, got); !errors.As(err, &st) || st.Key != 5 || st.ASC != 0x21 {
		t.Errorf("read behind the end: %v, want sense 05/21/00", err)
	}
	bad := &initiator.Command{CDB: [16]byte{0: 0xff}}
	if _, err := s.Do(ctx, bad); !errors.As(err, &st) || st.Key != 5 || st.ASC != 0x20 {
		t.Errorf("unknown command: %v, want sense 05/20/00", err)
	}
}

// TestInitiatorLoadCatches tampers with the unit behind the load's back: a lost write, a block in the wrong place
// and an old version that comes back must all be found.
func TestInitiatorLoadCatches(t *testing.T) {
	u := newUnit(t, "64MiB")
	c, other := client(u, "victim"), client(u, "tamperer")
	defer c.Close()
	defer other.Close()
	cfg := load.Config{Blocks: 64, Depth: 4, MaxBlocks: 1, Seed: uint64(time.Now().UnixNano())}
	if u.cl == nil {
		zero(t, c, cfg)
	}
	l := load.New(c, cfg)
	verified := func() (violations int) {
		t.Helper()
		if err := l.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(l.Report().Violations)
	}
	run := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		l.Run(ctx)
	}
	s, err := other.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lb := other.LogicalBlock()
	per := uint64(load.BlockLen / lb)
	read := func(block uint64) []byte {
		b := make([]byte, load.BlockLen)
		must(t, s.Read(t.Context(), block*per, lb, b))
		return b
	}
	write := func(block uint64, b []byte) { must(t, s.Write(t.Context(), block*per, lb, b)) }

	run()
	if n := verified(); n != 0 {
		t.Fatalf("%d violations before anything was touched", n)
	}
	old := read(7)
	for _, step := range []struct {
		name string
		b    []byte
	}{{"a lost write", make([]byte, load.BlockLen)}, {"a block in the wrong place", read(8)}} {
		write(7, step.b)
		if verified() == 0 {
			t.Errorf("%s was not found", step.name)
		}
	}
	write(7, old)
	run()
	write(7, old)
	if verified() == 0 {
		t.Error("an old version was not found")
	}
}
