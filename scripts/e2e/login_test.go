//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
)

// Who TestLogins logs in as, and with what.
const (
	loginTarget = "iqn.2026-11.dev.ashlar.test:logins"
	loginHost   = "iqn.2026-11.dev.ashlar.test:logins-host"
	loginUser   = "login-user"
	secretOne   = "login-secret-01"
	secretTwo   = "login-secret-02"
	secretOurs  = "login-secret-tgt"
)

// logins is a target that one initiator uses with CHAP, at two gateways.
type logins struct {
	t  *testing.T
	cl *cluster.Cluster
}

func (l logins) file(secret string) string {
	l.t.Helper()
	name := filepath.Join(l.t.TempDir(), "secret")
	must(l.t, os.WriteFile(name, []byte(secret+"\n"), 0o600))
	return name
}

// inquire logs in with libiscsi at a gateway, and out.
func (l logins) inquire(gateway int, secret string, query ...string) error {
	l.t.Helper()
	u := fmt.Sprintf("iscsi://%s%%%s@%s/%s/0", loginUser, secret, l.cl.Portals[gateway], loginTarget)
	if len(query) > 0 {
		u += "?" + strings.Join(query, "&")
	}
	out, err := try(l.t, toolMax, "iscsi-inq", "-i", loginHost, u)
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return nil
}

// accepted and refused say how a login must end; status is in the message of libiscsi.
func (l logins) accepted(what string, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Errorf("%s: %v", what, err)
	}
}

func (l logins) refused(what, status string, err error) {
	l.t.Helper()
	if err == nil || !strings.Contains(err.Error(), status) {
		l.t.Errorf("%s: %v, want %s", what, err, status)
	}
}

// TestLogins has libiscsi log in with right and wrong secrets, while a secret is replaced, with each algorithm, in discovery,
// and where the target moved.
func TestLogins(t *testing.T) {
	l := logins{t, startCluster(t, cluster.Options{Gateways: 2})}
	admin(t, l.cl, "volume", "create", "logins", "--size", "64MiB")
	admin(t, l.cl, "target", "create", loginTarget)
	admin(t, l.cl, "target", "map", loginTarget, "--lun", "0", "--volume", "logins")
	l.refused("an initiator that is not allowed", "(514)", l.inquire(0, secretOne))
	allow := func(args ...string) {
		t.Helper()
		admin(t, l.cl, append([]string{"target", "allow", loginTarget, "--initiator", loginHost, "--chap-user", loginUser}, args...)...)
	}
	allow("--chap-secret-file", l.file(secretOne), "--mutual-user", "ashlar", "--mutual-secret-file", l.file(secretOurs))
	l.accepted("the secret", l.inquire(0, secretOne))
	l.refused("another secret", "(513)", l.inquire(0, secretTwo))
	l.accepted("mutual", l.inquire(1, secretOne, "target_user=ashlar", "target_password="+secretOurs))
	l.refused("mutual, the target is another one", "CHAP_R", l.inquire(1, secretOne, "target_user=ashlar", "target_password="+secretTwo))
	for _, a := range []string{"md5", "sha1", "sha256", "sha3-256"} {
		l.accepted(a, l.inquire(0, secretOne, "auth="+a))
	}

	allow("--chap-secret-file", l.file(secretTwo), "--chap-old-secret-file", l.file(secretOne))
	for gateway := range 2 {
		l.accepted("the old secret", l.inquire(gateway, secretOne))
		l.accepted("the new secret", l.inquire(gateway, secretTwo))
	}
	allow("--chap-secret-file", l.file(secretTwo))
	for gateway := range 2 {
		l.refused("the old secret when it is over", "(513)", l.inquire(gateway, secretOne))
		l.accepted("the new secret", l.inquire(gateway, secretTwo))
	}

	l.discoveries()
	l.redirects()
}

// discoveries lists targets with and without a proof.
func (l logins) discoveries() {
	l.t.Helper()
	list := func(user string) string {
		out, err := try(l.t, toolMax, "iscsi-ls", "-i", loginHost, "iscsi://"+user+l.cl.Portals[0])
		if err != nil {
			return err.Error() + out
		}
		return out
	}
	if out := list(""); strings.Contains(out, loginTarget) || !strings.Contains(out, ":demo") {
		l.t.Errorf("without a proof: %s", out)
	}
	if out := list(loginUser + "%" + secretTwo + "@"); !strings.Contains(out, loginTarget) || !strings.Contains(out, ":demo") {
		l.t.Errorf("with a proof: %s", out)
	}
	if out := list(loginUser + "%" + secretOne + "@"); strings.Contains(out, "Target:") {
		l.t.Errorf("with a wrong secret: %s", out)
	}
}

// redirects has one gateway send its initiators to the other.
func (l logins) redirects() {
	l.t.Helper()
	admin(l.t, l.cl, "target", "redirect", loginTarget, "--to", l.cl.Portals[1])
	l.accepted("sent elsewhere", l.inquire(0, secretTwo))
	l.accepted("where it was sent to", l.inquire(1, secretTwo))
	admin(l.t, l.cl, "target", "redirect", loginTarget, "--to", l.cl.Portals[1], "--permanent") // libiscsi does not follow it
	l.refused("sent elsewhere for good", "(258)", l.inquire(0, secretTwo))
	l.accepted("where it was sent to", l.inquire(1, secretTwo))
	admin(l.t, l.cl, "target", "redirect", loginTarget, "--off")
	l.accepted("served again", l.inquire(0, secretTwo))
}
