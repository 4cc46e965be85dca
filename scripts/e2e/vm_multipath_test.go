//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
)

// wantTopology reads what "multipath -ll" said under a name, and wants path groups and paths that match, in any order.
func wantTopology(t *testing.T, out, name string, groups []string, paths ...string) {
	t.Helper()
	_, text, found := strings.Cut(out, "\n@@@ "+name+"\n")
	text, _, ended := strings.Cut(text, "\n@@@\n")
	if !found || !ended {
		t.Fatalf("no topology %q in the output", name)
	}
	if !strings.Contains(text, "ASHLAR,") || !strings.Contains(text, "hwhandler='1 alua'") {
		t.Errorf("%s: not our volume, or without ALUA:\n%s", name, text)
	}
	matchAll(t, name, regexp.MustCompile(`policy='.*`).FindAllString(text, -1), groups)
	matchAll(t, name, regexp.MustCompile(`\d+:\d+:\d+:\d+ +sd.*`).FindAllString(text, -1), paths)
}

// wantStates wants the states of the target port groups that were reported under a name.
func wantStates(t *testing.T, out, name string, states ...string) {
	t.Helper()
	_, text, _ := strings.Cut(out, "\n@@@ "+name+"\n")
	text, _, _ = strings.Cut(text, "\n@@@\n")
	matchAll(t, name, regexp.MustCompile(`asymmetric access state : .*`).FindAllString(text, -1), states)
}

// matchAll wants each line to match one of the patterns that no other line matches.
func matchAll(t *testing.T, name string, lines, patterns []string) {
	t.Helper()
	rest := slices.Clone(lines)
	for _, p := range patterns {
		i := slices.IndexFunc(rest, regexp.MustCompile(p).MatchString)
		if i < 0 {
			t.Errorf("%s: no %q in %q", name, p, rest)
			return
		}
		rest = slices.Delete(rest, i, i+1)
	}
	if len(rest) > 0 {
		t.Errorf("%s: %q as well", name, rest)
	}
}

// TestVMMultipath has dm-multipath over two gateways, one of which is killed in the middle of writes: with multipath-tools'
// defaults, with the settings of docs/operations.md, and with all paths in one group (multibus), which has both gateways in use
// at once. No write fails, nothing is lost, and the path comes back by itself.
func TestVMMultipath(t *testing.T) {
	const target = "iqn.2026-11.dev.ashlar.test:multipath"
	cl := startCluster(t, cluster.Options{Gateways: 2})
	admin(t, cl, "volume", "create", "multipath", "--size", "128MiB")
	admin(t, cl, "target", "create", target)
	admin(t, cl, "target", "map", target, "--lun", "0", "--volume", "multipath")
	admin(t, cl, "target", "allow", target, "--initiator", "*")
	gateway := func(portal string) string {
		i := slices.Index(cl.Portals, portal)
		if i < 0 {
			t.Errorf("the host names %q, portals are %q", portal, cl.Portals)
		}
		return fmt.Sprintf("gateway-%d", i+1)
	}
	out := guestWith(t, func(line string) {
		if portal, ok := strings.CutPrefix(line, "@@@ stop "); ok {
			if err := cl.Kill(gateway(portal)); err != nil {
				t.Error(err)
			}
		}
		if portal, ok := strings.CutPrefix(line, "@@@ start "); ok {
			if err := cl.StartRole(t.Context(), gateway(portal)); err != nil {
				t.Error(err)
			}
		}
	}, "multipath.sh", cl.Portals[0], target)
	t.Log(out)
	const (
		up, down  = `active ready +running`, `failed faulty`
		optimized = `prio=50 status=(active|enabled)$`
		other     = `prio=10 status=(active|enabled)$`
	)
	for _, name := range []string{"default", "documented"} {
		lost, back := name+" with a path lost", name+" with the path back"
		wantTopology(t, out, name, []string{optimized, other}, up, up)
		wantTopology(t, out, lost, []string{`prio=50 status=active$`, `prio=0 status=enabled$`}, up, down)
		wantStates(t, out, lost, `active/optimized`, `unavailable`)
		wantTopology(t, out, back, []string{optimized, other}, up, up)
		wantStates(t, out, back, `active/optimized`, `active/non optimized`)
	}
	wantTopology(t, out, "documented with the path back", []string{`prio=50 status=active$`, `prio=10 status=enabled$`}, up, up)
	wantTopology(t, out, "multibus", []string{`^policy='queue-length 0' `}, up, up)
	var v struct {
		Attachments []struct{ Epoch int }
	}
	must(t, json.Unmarshal([]byte(admin(t, cl, "volume", "show", "multipath", "-o", "json")), &v))
	if len(v.Attachments) != 1 || v.Attachments[0].Epoch < 20 {
		t.Errorf("the path hardly moved: %+v", v)
	}
}
