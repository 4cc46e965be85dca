//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// refusedWith tells whether a command ended with a sense code.
func refusedWith(err error, key, asc, ascq byte) bool {
	var s *initiator.StatusError
	return errors.As(err, &s) && s.Key == key && s.ASC == asc && s.ASCQ == ascq
}

// command sends one command and returns its data-in, at most n bytes.
func command(t *testing.T, s *initiator.Session, n int, out []byte, cdb ...byte) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), toolMax)
	defer cancel()
	c := &initiator.Command{Out: out}
	if n > 0 {
		c.In = make([]byte, n)
	}
	copy(c.CDB[:], cdb)
	rest, err := s.Do(ctx, c)
	return c.In[:max(n-rest, 0)], err
}

// TestCommands sends what no disk tool sends to a whole cluster: mode pages that change, log pages that follow the
// allocation, ORWRITE and WRITE ATOMIC, and SANITIZE with its progress.
func TestCommands(t *testing.T) {
	skipForeign(t)
	u := newUnit(t, "64MiB")
	s, _, err := at(t, u.portal, u.target, "iqn.2026-11.dev.ashlar.test:one", 0)
	must(t, err)
	defer s.Close()
	other, _, err := at(t, u.portal, u.target, "iqn.2026-11.dev.ashlar.test:two", 0)
	must(t, err)
	defer other.Close()
	t.Run("mode", func(t *testing.T) { modeChanges(t, s, other) })
	t.Run("write", func(t *testing.T) { mergesAndAtoms(t, s) })
	t.Run("space", func(t *testing.T) { spaceFollows(t, s) })
	t.Run("sanitize", func(t *testing.T) { sanitizes(t, s, other) })
}

// modeChanges sets and clears SWP from one host; the other one is told, and neither can write meanwhile.
func modeChanges(t *testing.T, s, other *initiator.Session) {
	control := func(swp byte) []byte {
		return []byte{0, 0, 0, 0, 0x0A, 0x0A, 0x20, 0x10, swp, 0, 0, 0, 0xFF, 0xFF, 0, 0}
	}
	_, err := command(t, s, 0, control(0x08), 0x15, 0x10, 0, 0, 16)
	must(t, err)
	if _, err := command(t, other, 0, nil, 0x00); !refusedWith(err, 0x06, 0x2A, 0x01) {
		t.Errorf("the other host is told %v, want 06/2A/01", err)
	}
	for _, host := range []*initiator.Session{s, other} {
		if err := host.Write(t.Context(), 0, 512, make([]byte, 512)); !refusedWith(err, 0x07, 0x27, 0x02) {
			t.Errorf("a write ends with %v, want 07/27/02", err)
		}
	}
	if p, err := command(t, s, 255, nil, 0x1A, 0x08, 0x0A, 0, 255); err != nil || p[2]&0x80 == 0 {
		t.Errorf("WP is not set: % X, %v", p, err)
	}
	_, err = command(t, s, 0, control(0), 0x15, 0x10, 0, 0, 16)
	must(t, err)
	must(t, other.Ready(t.Context()))
	must(t, other.Write(t.Context(), 0, 512, make([]byte, 512)))
}

// mergesAndAtoms sets bits with ORWRITE and writes one atomic unit; what goes beyond the unit is refused.
func mergesAndAtoms(t *testing.T, s *initiator.Session) {
	must(t, s.Write(t.Context(), 0, 512, bytes.Repeat([]byte{0x0F}, 16384)))
	_, err := command(t, s, 0, bytes.Repeat([]byte{0x50}, 8192), 0x8B, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 16)
	must(t, err)
	got := make([]byte, 16384)
	must(t, s.Read(t.Context(), 0, 512, got))
	want := bytes.Repeat([]byte{0x0F}, 16384)
	copy(want[3*512:], bytes.Repeat([]byte{0x5F}, 8192))
	if !bytes.Equal(got, want) {
		t.Error("ORWRITE left other bytes")
	}
	limits, err := command(t, s, 64, nil, 0x12, 1, 0xB0, 0, 64)
	must(t, err)
	unit := binary.BigEndian.Uint32(limits[44:])
	if unit == 0 || unit != binary.BigEndian.Uint32(limits[48:]) {
		t.Fatalf("atomic unit of % X", limits[44:])
	}
	atomic := []byte{0x9C, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(unit >> 8), byte(unit)}
	_, err = command(t, s, 0, make([]byte, unit*512), atomic...)
	must(t, err)
	atomic[9] = 1
	if _, err := command(t, s, 0, make([]byte, unit*512), atomic...); !refusedWith(err, 0x05, 0x24, 0) {
		t.Errorf("an atomic write that is not aligned: %v", err)
	}
}

// spaceFollows: LOG SENSE 0Ch tells more resources used after a write, within the time between two questions.
func spaceFollows(t *testing.T, s *initiator.Session) {
	must(t, s.Write(t.Context(), 65536, 512, make([]byte, 4<<20)))
	for range 60 {
		p, err := command(t, s, 252, nil, 0x4D, 0, 0x40|0x0C, 0, 0, 0, 0, 0, 252)
		must(t, err)
		if len(p) == 28 && binary.BigEndian.Uint32(p[20:]) > 0 && binary.BigEndian.Uint32(p[8:]) > 0 {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Error("LOG SENSE 0Ch never tells what is used")
}

// sanitizes overwrites the volume in the background: other hosts are refused and can follow it, and all of it is the pattern.
func sanitizes(t *testing.T, s, other *initiator.Session) {
	_, err := command(t, s, 0, []byte{0x01, 0, 0, 2, 0xAB, 0xCD}, 0x48, 0x81, 0, 0, 0, 0, 0, 0, 6)
	must(t, err)
	if err := other.Write(t.Context(), 0, 512, make([]byte, 512)); !refusedWith(err, 0x02, 0x04, 0x1B) {
		t.Errorf("a write meanwhile: %v, want 02/04/1B", err)
	}
	before := -1
	for range 200 {
		p, err := command(t, other, 252, nil, 0x03, 0, 0, 0, 252)
		must(t, err)
		if p[2]&0x0F == 0 {
			break
		}
		now := int(binary.BigEndian.Uint16(p[16:]))
		if p[2]&0x0F != 2 || p[12] != 0x04 || p[13] != 0x1B || p[15] != 0x80 || now < before {
			t.Fatalf("REQUEST SENSE: % X after %d", p, before)
		}
		before = now
		time.Sleep(100 * time.Millisecond)
	}
	if before <= 0 {
		t.Error("no progress was seen")
	}
	got := make([]byte, 1<<20)
	for _, lba := range []uint64{0, 65535, 131072 - 2048} {
		must(t, other.Read(t.Context(), lba, 512, got))
		if !bytes.Equal(got, bytes.Repeat([]byte{0xAB, 0xCD}, len(got)/2)) {
			t.Errorf("LBA %d is something else", lba)
		}
	}
	_, err = command(t, s, 0, nil, 0x48, 0x02)
	must(t, err)
	must(t, other.Read(t.Context(), 0, 512, got))
	if !bytes.Equal(got, make([]byte, len(got))) {
		t.Error("a block erase left something")
	}
}
