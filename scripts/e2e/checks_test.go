//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/checks"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// TestChecks runs the protocol checks of package checks, and the hostile ones, against the cluster; with E2E_ORACLE=tgt
// or E2E_PORTAL against another target, where what fails is only told. CHECKS selects by regular expression (suite/title).
func TestChecks(t *testing.T) {
	only := regexp.MustCompile(os.Getenv("CHECKS"))
	var u unit
	if foreign() {
		u = newUnit(t, "64MiB")
	} else { // with a second gateway, which targets move to
		u = createUnit(t, startCluster(t, cluster.Options{Gateways: 2}), "64MiB")
	}
	g := &peer.Target{Portal: u.portal, Name: u.target, LUN: u.lun, Initiator: "iqn.2026-11.dev.ashlar.test:checks"}
	if u.cl != nil {
		g.CHAP = chapUnit(t, u)
		g.Moved = movedTargets(t, u)
	}
	count := map[verdict]int{}
	for _, c := range checks.All() {
		name := c.Suite + "/" + c.Title
		if !only.MatchString(name) {
			continue
		}
		v, why := judge(t, c, g)
		if revive(t, g) {
			v, why = vFail, "the target is gone: "+why
		}
		count[v]++
		switch {
		case v == vSkip, v == vFail && foreign():
			t.Logf("%s %s: %s", v, name, why)
		case v == vFail:
			t.Errorf("%s %s: %s", v, name, why)
		}
	}
	t.Logf("%d passed, %d failed, %d skipped", count[vPass], count[vFail], count[vSkip])
}

// revive starts the oracle again if a check has ended it.
func revive(t *testing.T, g *peer.Target) (wasGone bool) {
	t.Helper()
	if common.tgt == nil {
		return false
	}
	c, err := wire.Dial(t.Context(), g.Portal)
	if err == nil {
		c.Close()
		return false
	}
	must(t, common.tgt.Stop())
	common.tgt, err = cluster.StartTGT(t.Context(), cluster.TGTOptions{Dir: common.dir, Size: 1 << 30, WriteThrough: true})
	must(t, err)
	g.Portal = common.tgt.Portal
	return true
}

// chapUnit makes a second target on the unit's volume, with credentials.
func chapUnit(t *testing.T, u unit) *peer.CHAP {
	t.Helper()
	c := &peer.CHAP{
		Name: u.target + ".chap", Initiator: "iqn.2026-11.dev.ashlar.test:chap",
		User: "host", Secret: "secret-of-host", TargetUser: "target", Mutual: "secret-of-target",
		Algorithms: []int{wire.CHAPMD5, wire.CHAPSHA1, wire.CHAPSHA256, wire.CHAPSHA3},
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	must(t, os.WriteFile(in, []byte(c.Secret), 0o600))
	must(t, os.WriteFile(out, []byte(c.Mutual), 0o600))
	admin(t, u.cl, "target", "create", c.Name)
	admin(t, u.cl, "target", "map", c.Name, "--lun", "0", "--volume", u.volume)
	admin(t, u.cl, "target", "allow", c.Name, "--initiator", "*",
		"--chap-user", c.User, "--chap-secret-file", in, "--mutual-user", c.TargetUser, "--mutual-secret-file", out)
	return c
}

// movedTargets makes targets that the first gateway sends its initiators to the second one for.
func movedTargets(t *testing.T, u unit) []peer.Moved {
	t.Helper()
	volume := u.volume + "-moved"
	admin(t, u.cl, "volume", "create", volume, "--size", "64MiB")
	var out []peer.Moved
	for _, permanent := range []bool{false, true} {
		m := peer.Moved{Name: fmt.Sprintf("%s.moved%d", u.target, len(out)+1), Permanent: permanent, Address: u.cl.Portals[1]}
		admin(t, u.cl, "target", "create", m.Name)
		admin(t, u.cl, "target", "map", m.Name, "--lun", fmt.Sprint(u.lun), "--volume", volume)
		admin(t, u.cl, "target", "allow", m.Name, "--initiator", "*")
		args := []string{"target", "redirect", m.Name, "--to", m.Address}
		if permanent {
			args = append(args, "--permanent")
		}
		admin(t, u.cl, args...)
		out = append(out, m)
	}
	return out
}

// run is what a check says its result to when a failure is not one of the test.
type run struct {
	t       *testing.T
	verdict verdict
	why     string
	cleanup []func()
}

// over ends a check.
type over struct{}

func (r *run) Helper()                           {}
func (r *run) Logf(format string, args ...any)   { r.t.Logf(format, args...) }
func (r *run) Errorf(format string, args ...any) { r.note(vFail, format, args...) }
func (r *run) Cleanup(f func())                  { r.cleanup = append(r.cleanup, f) }

func (r *run) Fatalf(format string, args ...any) {
	r.note(vFail, format, args...)
	panic(over{})
}

func (r *run) Skipf(format string, args ...any) {
	r.note(vSkip, format, args...)
	panic(over{})
}

func (r *run) note(v verdict, format string, args ...any) {
	if r.verdict != vFail {
		r.verdict, r.why = v, fmt.Sprintf(format, args...)
	}
}

// judge runs one check.
func judge(t *testing.T, c peer.Check, g *peer.Target) (verdict, string) {
	t.Helper()
	r := &run{t: t, verdict: vPass}
	func() {
		defer func() {
			if v := recover(); v != nil && v != (over{}) {
				panic(v)
			}
		}()
		c.Run(r, g)
	}()
	for _, f := range r.cleanup {
		f()
	}
	return r.verdict, r.why
}
