//go:build e2e

package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/cluster"
)

// chunkserverPause is the longest that an operation may take while a chunkserver dies (reliability F4).
const chunkserverPause = 4 * time.Second

// TestFaultChunkserver kills one chunkserver after the other under load, each when the one before has caught up
// again, then stops one for a while without killing it. No operation may fail or take longer than
// chunkserverPause, and no session may end.
func TestFaultChunkserver(t *testing.T) {
	cl := startCluster(t, cluster.Options{})
	servers := cl.Roles("chunkserver-")
	if len(servers) != 3 {
		t.Fatalf("chunkservers: %v, want 3", servers)
	}
	awaitHealthy(t, cl, 30*time.Second)
	r := startLoad(t, cl, mixed)
	for _, role := range servers[:2] {
		r.check("before "+role, 0)
		must(t, cl.Kill(role))
		time.Sleep(seconds(t, 5))
		r.flow(50)
		r.check("kill -9 "+role, chunkserverPause)
		must(t, cl.StartRole(t.Context(), role))
		awaitCaughtUp(t, cl, 60*time.Second)
		r.flow(50)
		r.check("catch-up of "+role, chunkserverPause)
	}
	must(t, cl.Signal(servers[2], syscall.SIGSTOP))
	time.Sleep(seconds(t, 6))
	must(t, cl.Signal(servers[2], syscall.SIGCONT))
	time.Sleep(time.Second)
	r.check("SIGSTOP "+servers[2], chunkserverPause)
	awaitCaughtUp(t, cl, 60*time.Second)
	r.stop()
	r.verify("after three faults")
	if n := r.client.Reconnects(); n != 0 {
		t.Errorf("the session ended %d times because a chunkserver did", n)
	}
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
