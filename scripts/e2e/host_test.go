//go:build e2e

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// toolMax bounds one call of a host tool.
const toolMax = 60 * time.Second

func TestHostDiscovery(t *testing.T) {
	u := newUnit(t, "256MiB")
	out := tool(t, toolMax, "iscsi-ls", "-s", "iscsi://"+u.portal)
	if !strings.Contains(out, "Target:"+u.target) {
		t.Errorf("iscsi-ls does not list %s:\n%s", u.target, out)
	}
	if !strings.Contains(out, fmt.Sprintf("Lun:%d", u.lun)) || !strings.Contains(out, "DIRECT_ACCESS") {
		t.Errorf("iscsi-ls does not list LUN %d:\n%s", u.lun, out)
	}
}

func TestHostInquiry(t *testing.T) {
	u := newUnit(t, "256MiB")
	out := tool(t, toolMax, "iscsi-inq", u.url())
	if !strings.Contains(out, "Peripheral Device Type:DIRECT_ACCESS") {
		t.Errorf("standard INQUIRY:\n%s", out)
	}
	for _, page := range []string{"0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"} {
		if out, err := try(t, toolMax, "iscsi-inq", "-e", "1", "-c", page, u.url()); err != nil {
			t.Errorf("VPD page %s: %v\n%s", page, err, out)
		}
	}
	cap16 := tool(t, toolMax, "iscsi-readcapacity16", u.url())
	if u.cl != nil && !strings.Contains(cap16, "Total size:268435456") {
		t.Errorf("READ CAPACITY(16) of a 256 MiB volume:\n%s", cap16)
	}
}

// randomImage makes a file of n bytes: random data with a hole of zeros in its middle.
func randomImage(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	clear(b[n/2 : n/2+n/8])
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestHostConvert copies an image to the unit with QEMU, compares it, and copies it back.
func TestHostConvert(t *testing.T) {
	const size = 64 << 20
	u := newUnit(t, "64MiB")
	img := randomImage(t, size)
	tool(t, 2*toolMax, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-m", "8", img, u.url())
	back := filepath.Join(t.TempDir(), "back")
	// An oracle's unit is larger than the image: read the image's length only.
	tool(t, 2*toolMax, "qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=1M", "count=64", "if="+u.url(), "of="+back)
	tool(t, toolMax, "cmp", "-n", fmt.Sprint(size), img, back)
	if u.cl != nil {
		tool(t, 2*toolMax, "qemu-img", "compare", "-f", "raw", "-F", "raw", img, u.url())
	}
}

// TestHostPatterns writes patterns with qemu-io, discards and zeroes parts of them, and reads all of it again,
// in this and in a new session.
func TestHostPatterns(t *testing.T) {
	u := newUnit(t, "64MiB")
	qemuIO := func(commands ...string) string {
		args := []string{"-f", "raw", "-t", "none"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out := tool(t, toolMax, "qemu-io", append(args, u.url())...)
		for _, bad := range []string{"failed", "Pattern verification", "error"} {
			if strings.Contains(out, bad) {
				t.Errorf("qemu-io: %s", out)
			}
		}
		return out
	}
	qemuIO(
		"write -P 0x11 0 8M", "write -P 0x22 8M 4k", "write -P 0x33 8k 512", "write -P 0x44 9k 1536",
		"read -P 0x33 8k 512", "read -P 0x11 8704 512", "read -P 0x44 9k 1536", "read -P 0x22 8M 4k",
		"aio_write -P 0x55 16M 1M", "aio_write -P 0x66 20M 3M", "aio_flush", "flush",
		"write -z 1M 1M", "write -z -u 3M 1M", "discard 5M 1M",
	)
	checks := []string{
		"read -P 0x11 0 8k", "read -P 0x33 8k 512", "read -P 0 1M 1M", "read -P 0x11 2M 1M", "read -P 0 3M 1M",
		"read -P 0x55 16M 1M", "read -P 0x66 20M 3M", "read -P 0x11 7M 1M",
	}
	if u.cl != nil { // LBPRZ: discarded blocks read zero
		checks = append(checks, "read -P 0 5M 1M")
	}
	qemuIO(checks...)
}

// TestHostThin checks that a volume takes space when it is written and gives it back when it is discarded.
func TestHostThin(t *testing.T) {
	skipForeign(t)
	u := newUnit(t, "256MiB")
	if n := allocated(t, u); n != 0 {
		t.Errorf("a new volume has %d bytes allocated", n)
	}
	tool(t, toolMax, "qemu-io", "-f", "raw", "-t", "none", "-c", "write -P 1 0 64M", u.url())
	awaitAllocated(t, u, func(n int64) bool { return n >= 64<<20 }, "64 MiB or more after a write")
	tool(t, toolMax, "qemu-io", "-f", "raw", "-t", "none", "-d", "unmap", "-c", "discard 0 48M", u.url())
	awaitAllocated(t, u, func(n int64) bool { return n <= 17<<20 }, "17 MiB or less after a discard of 48 MiB")
}

// allocated asks for the bytes that a volume holds.
func allocated(t *testing.T, u unit) int64 {
	t.Helper()
	return allocatedOf(t, admin(t, u.cl, "volume", "show", u.volume, "-o", "json"))
}

// allocatedOf finds "allocated" in the JSON of "volume show", whatever it is nested in.
func allocatedOf(t *testing.T, text string) int64 {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("volume show -o json: %v\n%s", err, text)
	}
	m, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("volume show -o json is no object:\n%s", text)
	}
	for _, key := range []string{"allocated", "allocated_bytes", "allocatedBytes"} {
		var n int64
		if _, err := fmt.Sscan(fmt.Sprint(m[key]), &n); m[key] != nil && err == nil {
			return n
		}
	}
	t.Fatalf("volume show -o json has no allocated bytes:\n%s", text)
	return 0
}

// awaitAllocated polls: the figure travels with the chunkservers' heartbeats.
func awaitAllocated(t *testing.T, u unit, ok func(int64) bool, what string) {
	t.Helper()
	var n int64
	for range 100 {
		if n = allocated(t, u); ok(n) {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Errorf("%d bytes allocated, want %s", n, what)
}
