//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

const (
	copyTarget, copyOther  = "iqn.2026-11.dev.ashlar.test:copy", "iqn.2026-11.dev.ashlar.test:copy-other"
	copyHost, copyNeighbor = "iqn.2026-11.dev.ashlar.test:copy-host", "iqn.2026-11.dev.ashlar.test:copy-neighbor"
	copyBlock              = 512
	copyLength             = 12 << 20
)

// naa reads the NAA designator of a logical unit from the Device Identification page (SPC-4 7.8.6).
func naa(ctx context.Context, t *testing.T, s *initiator.Session) []byte {
	t.Helper()
	page := make([]byte, 255)
	c := &initiator.Command{CDB: [16]byte{0x12, 1, 0x83, 0, 255}, In: page}
	_, err := s.Do(ctx, c)
	must(t, err)
	for d := page[4 : 4+binary.BigEndian.Uint16(page[2:])]; len(d) > 4; d = d[4+int(d[3]):] {
		if d[1]&0x3F == 3 {
			return d[4 : 4+d[3]]
		}
	}
	t.Fatal("no NAA designator")
	return nil
}

// copyOut sends a command of third-party copy (SPC-4 6.4, SBC-3 5.8 and 5.46).
func copyOut(ctx context.Context, s *initiator.Session, action byte, list []byte) error {
	c := &initiator.Command{CDB: [16]byte{0x83, action, 9: 1}, Out: list}
	if action == 0 {
		c.CDB[9] = 0
	}
	binary.BigEndian.PutUint32(c.CDB[10:], uint32(len(list)))
	_, err := s.Do(ctx, c)
	return err
}

// extendedCopy copies copyLength bytes from the begin of one logical unit to the block at of another one.
func extendedCopy(ctx context.Context, s *initiator.Session, from, to []byte, at uint64) error {
	p := make([]byte, 16+2*32+32)
	p[0], p[3], p[11] = 1, 2*32, 32
	for i, id := range [][]byte{from, to} {
		d := p[16+32*i:]
		d[0], d[4], d[5], d[7] = 0xE4, 1, 3, byte(len(id))
		copy(d[8:], id)
		d[30] = copyBlock >> 8
	}
	d := p[80:]
	d[0], d[3], d[7] = 0x0A, 0x1C, 1
	binary.BigEndian.PutUint32(d[8:], copyLength)
	binary.BigEndian.PutUint64(d[20:], at)
	return copyOut(ctx, s, 0, p)
}

// populate makes a token for the first copyLength bytes.
func populate(ctx context.Context, t *testing.T, s *initiator.Session) []byte {
	t.Helper()
	p := make([]byte, 32)
	p[1], p[15] = 30, 16
	binary.BigEndian.PutUint32(p[24:], copyLength/copyBlock)
	must(t, copyOut(ctx, s, 0x10, p))
	in := make([]byte, 550)
	_, err := s.Do(ctx, &initiator.Command{CDB: [16]byte{0x84, 7, 5: 1, 12: 550 >> 8, 13: 550 & 0xFF}, In: in})
	must(t, err)
	return in[38:]
}

// writeUsing writes by a token to the block at.
func writeUsing(ctx context.Context, s *initiator.Session, token []byte, at uint64) error {
	p := make([]byte, 536+16)
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	copy(p[16:], token)
	p[535] = 16
	binary.BigEndian.PutUint64(p[536:], at)
	binary.BigEndian.PutUint32(p[544:], copyLength/copyBlock)
	return copyOut(ctx, s, 0x11, p)
}

func wantSenseOf(t *testing.T, what string, err error, key, asc, ascq byte) {
	t.Helper()
	var st *initiator.StatusError
	if !errors.As(err, &st) || st.Key != key || st.ASC != asc || st.ASCQ != ascq {
		t.Errorf("%s: %v, want sense %02x/%02x/%02x", what, err, key, asc, ascq)
	}
}

// TestCopyOffload: data go from volume to volume without passing the host, what the host does not see is out of reach, and
// a token is good through any gateway and ends when its source is written through another one.
func TestCopyOffload(t *testing.T) {
	skipForeign(t)
	cl := startCluster(t, cluster.Options{Gateways: 2})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i, v := range []string{"copy-source", "copy-destination", "copy-hidden"} {
		admin(t, cl, "volume", "create", v, "--size", "64MiB")
		iqn := copyTarget
		if i == 2 {
			iqn = copyOther
		}
		if i != 1 {
			admin(t, cl, "target", "create", iqn)
		}
		admin(t, cl, "target", "map", iqn, "--lun", string(rune('0'+i%2)), "--volume", v)
	}
	for _, host := range []string{copyHost, copyNeighbor} {
		admin(t, cl, "target", "allow", copyTarget, "--initiator", host)
	}
	admin(t, cl, "target", "allow", copyOther, "--initiator", copyNeighbor)
	login := func(gateway int, target, host string, lun uint16) *initiator.Session {
		s, err := initiator.Dial(ctx, initiator.Config{
			Portal: cl.Portals[gateway], Target: target, LUN: lun, Name: host, ISID: [6]byte{0x80, 0, 0, 0, 0, byte(lun + 1)},
		})
		must(t, err)
		t.Cleanup(s.Close)
		must(t, s.Ready(ctx))
		return s
	}
	source, destination := login(0, copyTarget, copyHost, 0), login(0, copyTarget, copyHost, 1)
	neighbor, other := login(1, copyTarget, copyNeighbor, 0), login(1, copyTarget, copyNeighbor, 1)
	unseen := login(1, copyOther, copyNeighbor, 0)
	hidden := naa(ctx, t, unseen)
	from, to := naa(ctx, t, source), naa(ctx, t, destination)

	data := make([]byte, copyLength)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < 5<<20; i += 8 { // the rest is never written
		binary.LittleEndian.PutUint64(data[i:], rnd.Uint64())
	}
	for at := 0; at < 5<<20; at += 1 << 20 {
		must(t, source.Write(ctx, uint64(at)/copyBlock, copyBlock, data[at:at+1<<20]))
	}
	check := func(what string, at uint64) {
		t.Helper()
		got := make([]byte, 1<<20)
		for i := 0; i < copyLength; i += len(got) {
			must(t, other.Read(ctx, at+uint64(i)/copyBlock, copyBlock, got))
			if !bytes.Equal(got, data[i:i+len(got)]) {
				t.Fatalf("%s: other data in the MiB at %d", what, i>>20)
			}
		}
	}
	begin := time.Now()
	must(t, extendedCopy(ctx, source, from, to, 7))
	t.Logf("EXTENDED COPY of %d MiB, 5 of them written: %v", copyLength>>20, time.Since(begin).Round(time.Millisecond))
	check("EXTENDED COPY", 7)
	must(t, extendedCopy(ctx, destination, from, to, 24576))
	check("EXTENDED COPY sent to the destination", 24576)
	wantSenseOf(t, "EXTENDED COPY from a volume that the host does not see", extendedCopy(ctx, source, hidden, to, 0), 0x0A, 0x0D, 0x02)
	wantSenseOf(t, "EXTENDED COPY onto a volume that the host does not see", extendedCopy(ctx, source, from, hidden, 0), 0x0A, 0x0D, 0x02)

	begin = time.Now()
	token := populate(ctx, t, source)
	t.Logf("POPULATE TOKEN: %v", time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	must(t, writeUsing(ctx, destination, token, 65536))
	t.Logf("WRITE USING TOKEN: %v", time.Since(begin).Round(time.Millisecond))
	check("WRITE USING TOKEN", 65536)
	begin = time.Now()
	must(t, writeUsing(ctx, other, token, 98304))
	t.Logf("WRITE USING TOKEN at another gateway: %v", time.Since(begin).Round(time.Millisecond))
	check("WRITE USING TOKEN at another gateway", 98304)
	wantSenseOf(t, "a token of a volume that the host does not see", writeUsing(ctx, destination, populate(ctx, t, unseen), 0), 5, 0x23, 0x04)
	must(t, neighbor.Write(ctx, 3, copyBlock, data[:copyBlock]))
	wantSenseOf(t, "the token after a write through another gateway", writeUsing(ctx, destination, token, 65536), 5, 0x23, 0x06)
	wantSenseOf(t, "the token at another gateway after that", writeUsing(ctx, other, token, 65536), 5, 0x23, 0x06)
	check("WRITE USING TOKEN that was refused", 65536)
	wantSenseOf(t, "a token that was revoked", writeUsing(ctx, destination, token, 65536), 5, 0x23, 0x04)
}
