package metaserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
)

// cluster starts a metaserver and three chunkservers and waits for copysets.
func cluster(t *testing.T, name string) (*daemon, *world, metav1.AdminClient) {
	t.Helper()
	t.Parallel()
	w := newWorld(t, nil)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("a1", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(name)
	cfg.SealKeyFile = key
	d := start(t, cfg, Options{Raiser: w, Version: "1"})
	w.client = dial(t, d.address)
	for i := range byte(3) {
		w.add(i+1, string('a'+rune(i)))
	}
	admin := w.client.Admin()
	eventually(t, "copysets with leaders", func() bool { return serving(t, admin) >= 4 })
	return d, w, admin
}

// serving counts the copysets with a quorum, 0 while one has none.
func serving(t *testing.T, admin metav1.AdminClient) int {
	t.Helper()
	r, err := admin.ListCopysets(t.Context(), &metav1.ListCopysetsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.GetCopysets() {
		if !c.GetQuorum() {
			return 0
		}
	}
	return len(r.GetCopysets())
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantCode(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %v with %q", err, code, text)
	}
}

// TestCluster goes the whole way: chunkservers, copysets, a volume, a target, exports, attaching, unmapping, deleting.
func TestCluster(t *testing.T) {
	_, w, admin := cluster(t, "whole")
	ctx := t.Context()
	if n := serving(t, admin); n != 4 {
		t.Errorf("%d copysets, want 4: one per round of the three zones", n)
	}
	v := must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 4 << 30}))(t)
	if v.GetLogicalBlock() != 512 || v.GetNaa()[0]>>4 != 6 || len(v.GetNaa()) != 16 || len(v.GetRanges()[0].GetCopysets()) != 4 {
		t.Errorf("volume %v", v)
	}
	_, err := admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 4 << 30})
	wantCode(t, err, codes.AlreadyExists, `there is a volume "v"`)
	const iqn = "iqn.2026-11.com.example:t"
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: strings.ToUpper(iqn)}))(t)
	must(admin.MapLUN(ctx, &metav1.MapLUNRequest{Iqn: iqn, Lun: 3, Volume: "v"}))(t)
	g := newGateway(t, w.client, "g")
	attach := &metav1.AttachRequest{Gateway: g.id, Volume: v.GetId(), Initiator: "iqn.1991-05.com.microsoft:H_1"}
	_, err = w.client.Node().Attach(ctx, attach)
	wantCode(t, err, codes.FailedPrecondition, "allow it first")
	tg := must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{
		Name: attach.GetInitiator(), ChapUser: "u", ChapSecret: "0123456789ab", MutualUser: "m", MutualSecret: "ba9876543210",
	}}))(t)
	if i := tg.GetInitiators()[0]; i.GetChapSecret() != "" || i.GetMutualSecret() != "" || i.GetChapUser() != "u" {
		t.Errorf("the administrator sees %v", i)
	}
	e := g.exports()
	if i := e.GetTargets()[0].GetInitiators()[0]; i.GetChapSecret() != "0123456789ab" || i.GetMutualSecret() != "ba9876543210" {
		t.Errorf("gateways get %v", i)
	}
	if len(e.GetCopysets()) != 4 || len(e.GetCopysets()[0].GetPeers()) != 3 || e.GetCopysets()[0].GetLeader() == 0 ||
		len(e.GetChunkservers()) != 3 || e.GetVolumes()[0].GetId() != v.GetId() {
		t.Errorf("exports %v", e)
	}
	one := must(w.client.Node().Attach(ctx, attach))(t)
	two := must(w.client.Node().Attach(ctx, attach))(t)
	if two.GetEpoch() != one.GetEpoch()+1 || two.GetInitiatorId() != one.GetInitiatorId() || two.GetAccessGeneration() != 1 {
		t.Errorf("attached as %v, then %v", one, two)
	}
	keepsEpoch(t, w.client, attach, one.GetEpoch(), two.GetEpoch())
	_, err = admin.DeleteVolume(ctx, &metav1.DeleteVolumeRequest{Name: "v"})
	wantCode(t, err, codes.FailedPrecondition, "unmap it first")
	must(admin.UnmapLUN(ctx, &metav1.UnmapLUNRequest{Iqn: iqn, Lun: 3}))(t)
	if w.count(layout.VolumeID(v.GetId())) != 4 {
		t.Errorf("unmapping told %d copysets before it was answered, want 4", w.count(layout.VolumeID(v.GetId())))
	}
	v = must(admin.ShowVolume(ctx, &metav1.ShowVolumeRequest{Name: "v"}))(t)
	if v.GetAccessGeneration() != 2 || v.GetAllocated() != 4*4096 || len(v.GetAttachments()) != 1 {
		t.Errorf("after unmapping: %v", v)
	}
	must(admin.DeleteVolume(ctx, &metav1.DeleteVolumeRequest{Name: "v"}))(t)
	eventually(t, "the record is gone", func() bool {
		return len(must(admin.ListVolumes(ctx, &metav1.ListVolumesRequest{}))(t).GetVolumes()) == 0
	})
	st := must(admin.ClusterStatus(ctx, &metav1.ClusterStatusRequest{}))(t)
	if !st.GetHealthy() || len(st.GetNotes()) != 1 {
		t.Errorf("status %v", st)
	}
}

// keepsEpoch asks as a gateway that had an epoch: the owner with the last one keeps it, everybody else gets a new one.
func keepsEpoch(t *testing.T, client *metaclient.Client, q *metav1.AttachRequest, old, last uint64) {
	t.Helper()
	other := newGateway(t, client, "h").id
	node := client.Node()
	for _, c := range []struct{ gateway, had, want uint64 }{
		{q.GetGateway(), last, last},
		{q.GetGateway(), old, last + 1},
		{q.GetGateway(), last + 1, last + 1},
		{other, last + 1, last + 2},
		{q.GetGateway(), last + 1, last + 3},
	} {
		a := must(node.Attach(t.Context(), &metav1.AttachRequest{
			Gateway: c.gateway, Volume: q.GetVolume(), Initiator: q.GetInitiator(), Had: c.had,
		}))(t)
		if a.GetEpoch() != c.want {
			t.Errorf("gateway %d that had epoch %d got %d, want %d", c.gateway, c.had, a.GetEpoch(), c.want)
		}
	}
}

func (w *world) count(v layout.VolumeID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.raised[v]
}

// TestSecretsAtRest looks for secrets in what etcd holds.
func TestSecretsAtRest(t *testing.T) {
	_, _, admin := cluster(t, "sealed")
	const iqn, secret = "iqn.2026-11.com.example:s", "find-me-if-can"
	must(admin.CreateTarget(t.Context(), &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	must(admin.AllowInitiator(t.Context(), &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{
		Name: "iqn.2026-11.com.example:i", ChapUser: "user", ChapSecret: secret,
	}}))(t)
	r := must(etcdClient(t).Get(t.Context(), "/ashlar/sealed/", clientv3.WithPrefix()))(t)
	found := false
	for _, kv := range r.Kvs {
		found = found || strings.Contains(string(kv.Value), "user")
		if strings.Contains(string(kv.Value), secret) {
			t.Errorf("%s holds the secret", kv.Key)
		}
	}
	if !found {
		t.Error("the entry is not in etcd: the test looks in the wrong place")
	}
}

// TestReplacePeer replaces a peer on its own chunkserver, for there is no other, then drains onto a fourth one.
func TestReplacePeer(t *testing.T) {
	_, w, admin := cluster(t, "replace")
	ctx := t.Context()
	c := must(admin.ShowCopyset(ctx, &metav1.ShowCopysetRequest{Id: 1}))(t)
	var peer *metav1.Peer
	for _, p := range c.GetPeers() {
		if p.GetChunkserver() == c.GetLeader() {
			peer = p
		}
	}
	r := must(admin.ReplacePeer(ctx, &metav1.ReplacePeerRequest{Copyset: 1, Peer: peer.GetId()}))(t)
	if r.GetOperation().GetNewChunkserver() != peer.GetChunkserver() {
		t.Errorf("operation %v: with three chunkservers only its own can take the peer", r.GetOperation())
	}
	done := func(id uint64) *metav1.Copyset {
		var c *metav1.Copyset
		eventually(t, "the replacement ends", func() bool {
			c = must(admin.ShowCopyset(ctx, &metav1.ShowCopysetRequest{Id: id}))(t)
			return c.GetOperation() == nil
		})
		return c
	}
	c = done(1)
	if len(c.GetPeers()) != 3 || hasPeer(c, peer.GetId()) || !hasPeer(c, r.GetOperation().GetNewPeer()) {
		t.Errorf("after the replacement: %v", c)
	}
	four := w.add(4, "a")
	must(admin.DrainChunkserver(ctx, &metav1.DrainChunkserverRequest{Id: 1}))(t)
	eventually(t, "the drain ends", func() bool {
		r := must(admin.ShowChunkserver(ctx, &metav1.ShowChunkserverRequest{Id: 1}))(t)
		return len(r.GetCopysets()) == 0
	})
	eventually(t, "the replicas are given back", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.servers[1].replicas) == 0
	})
	if l := must(admin.ShowChunkserver(ctx, &metav1.ShowChunkserverRequest{Id: four}))(t); len(l.GetCopysets()) < 4 {
		t.Errorf("chunkserver %d has %d copysets, want those of the drained one", four, len(l.GetCopysets()))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrong) > 0 {
		t.Errorf("wrong orders: %v", w.wrong)
	}
}

func hasPeer(c *metav1.Copyset, id uint64) bool {
	for _, p := range c.GetPeers() {
		if p.GetId() == id {
			return true
		}
	}
	return false
}

// TestStatus takes two of three chunkservers away and reads what is said about it.
func TestStatus(t *testing.T) {
	_, w, admin := cluster(t, "status")
	must(admin.CreateVolume(t.Context(), &metav1.CreateVolumeRequest{Name: "wait", Size: 1 << 30}))(t)
	w.down(1)
	w.down(2)
	var st *metav1.ClusterStatusReply
	eventually(t, "the status says that quorums are gone", func() bool {
		st = must(admin.ClusterStatus(t.Context(), &metav1.ClusterStatusRequest{}))(t)
		return st.GetCopysetsWithoutQuorum() == 4
	})
	all := strings.Join(st.GetProblems(), "\n")
	for _, want := range []string{
		"Chunkserver 1 (127.0.0.1:1) is down, last heard of", "drain it (ashlar chunkserver drain 2)",
		"4 copysets (1, 2, 3, 4) are without quorum", "I/O of a part of volume wait waits: copyset",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
}

// TestDeleteWithoutQuorum deletes a volume of which one copyset does not answer; the deletion ends under the next
// metaserver.
func TestDeleteWithoutQuorum(t *testing.T) {
	d, w, admin := cluster(t, "delete")
	must(admin.CreateVolume(t.Context(), &metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	w.mu.Lock()
	w.refuse[2] = true
	w.mu.Unlock()
	begin := time.Now()
	must(admin.DeleteVolume(t.Context(), &metav1.DeleteVolumeRequest{Name: "v"}))(t)
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("deleting waited %v", took)
	}
	must(admin.CreateVolume(t.Context(), &metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	cfg := testConfig("delete")
	next := start(t, cfg, Options{Raiser: w})
	w.mu.Lock()
	w.refuse[2] = false
	w.mu.Unlock()
	d.stop2(t)
	admin = dial(t, next.address).Admin()
	eventually(t, "only the new volume is left", func() bool {
		l := must(admin.ListVolumes(t.Context(), &metav1.ListVolumesRequest{}))(t).GetVolumes()
		return len(l) == 1 && l[0].GetState() == metav1.VolumeState_VOLUME_STATE_ACTIVE
	})
}

// stop2 stops a metaserver before the end of the test, which stops it again.
func (d *daemon) stop2(t *testing.T) {
	t.Helper()
	d.cancel()
	select {
	case err := <-d.done:
		d.done <- err
	case <-time.After(10 * time.Second):
		t.Error("the metaserver did not stop")
	}
}

// TestRotationAndRedirect follows an old secret and a redirect to the gateways and out again.
func TestRotationAndRedirect(t *testing.T) {
	_, w, admin := cluster(t, "rotation")
	ctx := t.Context()
	const iqn, host = "iqn.2026-11.com.example:t", "iqn.2026-11.com.example:host"
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	g := newGateway(t, w.client, "g")
	allow := func(old string) *metav1.Target {
		return must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{
			Name: host, ChapUser: "u", ChapSecret: "0123456789ab", ChapOldSecret: old,
		}}))(t)
	}
	if i := allow("0123456789cd").GetInitiators()[0]; i.GetChapOldSecret() != "" || !i.GetChapRotating() {
		t.Errorf("the administrator sees %v", i)
	}
	if i := g.exports().GetTargets()[0].GetInitiators()[0]; i.GetChapSecret() != "0123456789ab" || i.GetChapOldSecret() != "0123456789cd" {
		t.Errorf("gateways get %v", i)
	}
	if i := allow("").GetInitiators()[0]; i.GetChapRotating() {
		t.Errorf("the administrator sees %v", i)
	}
	if i := g.exports().GetTargets()[0].GetInitiators()[0]; i.GetChapOldSecret() != "" {
		t.Error("gateways still get the old secret")
	}
	to := &metav1.Redirect{Gateway: "g", Address: "10.0.0.2:3260", Permanent: true}
	for range 2 { // the second changes nothing
		tg := must(admin.RedirectTarget(ctx, &metav1.RedirectTargetRequest{Iqn: iqn, Redirect: to}))(t)
		if r := tg.GetRedirects(); len(r) != 1 || r[0].GetAddress() != to.GetAddress() || !r[0].GetPermanent() || r[0].GetGateway() != "g" {
			t.Errorf("redirects %v", r)
		}
	}
	if r := g.exports().GetTargets()[0].GetRedirects(); len(r) != 1 || r[0].GetAddress() != to.GetAddress() {
		t.Errorf("gateways get %v", r)
	}
	tg := must(admin.RedirectTarget(ctx, &metav1.RedirectTargetRequest{Iqn: iqn, Redirect: &metav1.Redirect{Gateway: "g"}}))(t)
	if len(tg.GetRedirects()) != 0 {
		t.Errorf("redirects %v", tg.GetRedirects())
	}
}
