package metaserver

import (
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// anyMax is namespace's volumeAnyMax.
const anyMax = 1024

// TestManyNames lets a host use a volume that is open to all under ever new names: that ends at a limit, which those that are
// known or allowed by name do not feel, and what was remembered goes with the volume.
func TestManyNames(t *testing.T) {
	d, w, admin := cluster(t, "names")
	ctx, node := t.Context(), w.client.Node()
	const iqn, named = "iqn.2026-11.com.example:t", "iqn.2026-11.com.example:named"
	v := must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	if err := mapLUN(ctx, admin, iqn, 0, "v", false)(); err != nil {
		t.Fatal(err)
	}
	must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{Name: "*"}}))(t)
	g := newGateway(t, w.client, "g")
	attach := func(volume uint64, name string) (*metav1.AttachReply, error) {
		return node.Attach(ctx, &metav1.AttachRequest{Gateway: g.id, Volume: volume, Initiator: name})
	}
	name := func(i int) string { return fmt.Sprintf("iqn.2026-11.com.example:h%d", i) }
	var group errgroup.Group
	group.SetLimit(8)
	for i := range anyMax {
		group.Go(func() error {
			_, err := attach(v.GetId(), name(i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	_, err := attach(v.GetId(), name(anyMax))
	wantCode(t, err, codes.ResourceExhausted, `volume "v" has been used by 1024 initiators`)
	wantCode(t, err, codes.ResourceExhausted, "ashlar target allow IQN --initiator "+name(anyMax))
	first := must(attach(v.GetId(), name(0)))(t)
	if first.GetEpoch() != 2 {
		t.Errorf("one that is known got epoch %d", first.GetEpoch())
	}
	st := must(admin.ClusterStatus(ctx, &metav1.ClusterStatusRequest{}))(t)
	if !strings.Contains(strings.Join(st.GetProblems(), "\n"), "Volume v is open to any initiator") {
		t.Errorf("problems: %v", st.GetProblems())
	}
	must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{Name: named}}))(t)
	last := must(attach(v.GetId(), named))(t)
	if l := must(admin.ListVolumes(ctx, &metav1.ListVolumesRequest{}))(t).GetVolumes()[0].GetAttachments(); len(l) != 64 {
		t.Errorf("a list shows %d attachments", len(l))
	}
	if s := must(admin.ShowVolume(ctx, &metav1.ShowVolumeRequest{Name: "v"}))(t).GetAttachments(); len(s) != anyMax+1 {
		t.Errorf("the volume has %d attachments", len(s))
	}

	// The next metaserver knows all of it; then the volume goes, and the names that used no other one.
	next := start(t, testConfig("names"), Options{Raiser: w})
	eventually(t, "the next one stands by", func() bool { return next.Ready() == nil })
	d.stop2(t)
	client := dial(t, next.address)
	admin, node = client.Admin(), client.Node()
	_, err = attach(v.GetId(), name(anyMax))
	wantCode(t, err, codes.ResourceExhausted, "used by 1024 initiators")
	other := must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "other", Size: 1 << 30}))(t)
	if err := mapLUN(ctx, admin, iqn, 1, "other", false)(); err != nil {
		t.Fatal(err)
	}
	kept := must(attach(other.GetId(), name(7)))(t)
	must(admin.UnmapLUN(ctx, &metav1.UnmapLUNRequest{Iqn: iqn, Lun: 0}))(t)
	must(admin.DeleteVolume(ctx, &metav1.DeleteVolumeRequest{Name: "v"}))(t)
	left := func(table string) int {
		r := must(etcdClient(t).Get(ctx, "/ashlar/names/"+table+"/", clientv3.WithPrefix(), clientv3.WithCountOnly()))(t)
		return int(r.Count)
	}
	eventually(t, "what is remembered of the volume is gone", func() bool { return left("attachment") == 1 && left("initiator") == 1 })
	if a := must(attach(other.GetId(), name(7)))(t); a.GetInitiatorId() != kept.GetInitiatorId() || a.GetEpoch() != kept.GetEpoch()+1 {
		t.Errorf("one that has another volume got %v after %v", a, kept)
	}
	if a := must(attach(other.GetId(), name(0)))(t); a.GetInitiatorId() <= last.GetInitiatorId() || a.GetEpoch() != 1 {
		t.Errorf("a forgotten name got %v, want an id that nobody had (the last one was %d)", a, last.GetInitiatorId())
	}
}
