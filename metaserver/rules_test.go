package metaserver

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
)

// TestRefusals asks for what can not be done; every answer says why, in its kind and in words.
func TestRefusals(t *testing.T) {
	_, w, admin := cluster(t, "refusals")
	const iqn, host = "iqn.2026-11.com.example:t", "iqn.2026-11.com.example:host"
	ctx := t.Context()
	volume := func(q *metav1.CreateVolumeRequest) func() error {
		return func() error { _, err := admin.CreateVolume(ctx, q); return err }
	}
	allow := func(i *metav1.Initiator) func() error {
		return func() error {
			_, err := admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: i})
			return err
		}
	}
	long := func(secret string) func() error {
		return func() error {
			i := &metav1.Initiator{Name: host + "-long", ChapUser: "u", ChapSecret: secret}
			_, err := admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: i, LongSecrets: true})
			return err
		}
	}
	redirect := func(gateway, to string) func() error {
		return func() error {
			r := &metav1.Redirect{Gateway: gateway, Address: to}
			_, err := admin.RedirectTarget(ctx, &metav1.RedirectTargetRequest{Iqn: iqn, Redirect: r})
			return err
		}
	}
	for _, c := range []struct {
		name string
		do   func() error
		code codes.Code
		text string
	}{
		{"volume", volume(&metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}), codes.OK, ""},
		{"other volume", volume(&metav1.CreateVolumeRequest{Name: "w", Size: 1 << 30, LogicalBlock: 4096}), codes.OK, ""},
		{"no name", volume(&metav1.CreateVolumeRequest{Size: 1}), codes.InvalidArgument, "has a name"},
		{"bad name", volume(&metav1.CreateVolumeRequest{Name: "a/b", Size: 512}), codes.InvalidArgument, `"a/b" can not be the name`},
		{"no size", volume(&metav1.CreateVolumeRequest{Name: "x"}), codes.InvalidArgument, "has a size"},
		{"odd size", volume(&metav1.CreateVolumeRequest{Name: "x", Size: 1000}), codes.InvalidArgument, "not a multiple of the logical block size"},
		{"odd size of 4096", volume(&metav1.CreateVolumeRequest{Name: "x", Size: 512, LogicalBlock: 4096}), codes.InvalidArgument, "4096 bytes"},
		{"too large", volume(&metav1.CreateVolumeRequest{Name: "x", Size: 1 << 60}), codes.InvalidArgument, "largest volume"},
		{"block size", volume(&metav1.CreateVolumeRequest{Name: "x", Size: 512, LogicalBlock: 1024}), codes.InvalidArgument, "512 or 4096"},
		{"chunk size", volume(&metav1.CreateVolumeRequest{Name: "x", Size: 512, ChunkSize: 12345}), codes.InvalidArgument, "power of two"},
		{"stripe", volume(&metav1.CreateVolumeRequest{Name: "x", Size: 512, StripeUnit: 5000}), codes.InvalidArgument, "stripe unit"},
		{"pool", volume(&metav1.CreateVolumeRequest{Name: "x", Size: 512, Pool: "fast"}), codes.NotFound, `no pool "fast"`},
		{"same volume", volume(&metav1.CreateVolumeRequest{Name: "v", Size: 1 << 30}), codes.AlreadyExists, `volume "v" already`},
		{"shrink", func() error {
			_, err := admin.ResizeVolume(ctx, &metav1.ResizeVolumeRequest{Name: "v", Size: 512})
			return err
		}, codes.InvalidArgument, "smaller"},
		{"show", func() error { _, err := admin.ShowVolume(ctx, &metav1.ShowVolumeRequest{Name: "no"}); return err }, codes.NotFound, "ashlar volume list"},
		{"delete", func() error {
			_, err := admin.DeleteVolume(ctx, &metav1.DeleteVolumeRequest{Name: "no"})
			return err
		}, codes.NotFound, `no volume "no"`},
		{"bad target", func() error {
			_, err := admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: "disk1"})
			return err
		}, codes.InvalidArgument, "looks like iqn."},
		{"target", func() error { _, err := admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}); return err }, codes.OK, ""},
		{"same target", func() error { _, err := admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}); return err }, codes.AlreadyExists, iqn},
		{"high LUN", mapLUN(ctx, admin, iqn, 256, "v", false), codes.InvalidArgument, "0 to 255"},
		{"map", mapLUN(ctx, admin, iqn, 255, "v", true), codes.OK, ""},
		{"map again", mapLUN(ctx, admin, iqn, 255, "v", true), codes.OK, ""},
		{"map writable", mapLUN(ctx, admin, iqn, 255, "v", false), codes.AlreadyExists, `is volume "v" (read-only)`},
		{"map twice", mapLUN(ctx, admin, iqn, 1, "v", false), codes.AlreadyExists, "LUN 255"},
		{"map nothing", mapLUN(ctx, admin, iqn, 1, "no", false), codes.NotFound, `no volume "no"`},
		{"map nowhere", mapLUN(ctx, admin, iqn+"x", 1, "v", false), codes.NotFound, "ashlar target list"},
		{"delete mapped", func() error {
			_, err := admin.DeleteTarget(ctx, &metav1.DeleteTargetRequest{Iqn: iqn})
			return err
		}, codes.FailedPrecondition, "ashlar target unmap " + iqn + " --lun 255"},
		{"unmap", func() error { _, err := admin.UnmapLUN(ctx, &metav1.UnmapLUNRequest{Iqn: iqn, Lun: 1}); return err }, codes.NotFound, "no LUN 1"},
		{"short secret", allow(&metav1.Initiator{Name: host, ChapUser: "u", ChapSecret: "short"}), codes.InvalidArgument, "12 to 16 bytes"},
		{"long secret", allow(&metav1.Initiator{Name: host, ChapUser: "u", ChapSecret: strings.Repeat("x", 17)}), codes.InvalidArgument, "has 17"},
		{"no user", allow(&metav1.Initiator{Name: host, ChapSecret: "0123456789ab"}), codes.InvalidArgument, "both a user and a secret"},
		{"mutual only", allow(&metav1.Initiator{Name: host, MutualUser: "m", MutualSecret: "0123456789ab"}), codes.InvalidArgument, "on top of CHAP"},
		{"same secrets", allow(&metav1.Initiator{
			Name: host, ChapUser: "u", ChapSecret: "0123456789ab", MutualUser: "m", MutualSecret: "0123456789ab",
		}), codes.InvalidArgument, "are the same"},
		{"allow", allow(&metav1.Initiator{
			Name: host, ChapUser: "u", ChapSecret: "0123456789ab", MutualUser: "m", MutualSecret: "ba9876543210",
		}), codes.OK, ""},
		{"secret of the target", allow(&metav1.Initiator{Name: host + "2", ChapUser: "u", ChapSecret: "ba9876543210"}), codes.InvalidArgument, "is the mutual secret of"},
		{"secret of the target as the old one", allow(&metav1.Initiator{
			Name: host + "2", ChapUser: "u", ChapSecret: "0123456789cd", ChapOldSecret: "ba9876543210",
		}), codes.InvalidArgument, "is the mutual secret of"},
		{"old secret only", allow(&metav1.Initiator{Name: host, ChapOldSecret: "0123456789ab"}), codes.InvalidArgument, "beside a new one"},
		{"old secret again", allow(&metav1.Initiator{
			Name: host, ChapUser: "u", ChapSecret: "0123456789ab", ChapOldSecret: "0123456789ab",
		}), codes.InvalidArgument, "leave the old one out"},
		{"old secret is mutual", allow(&metav1.Initiator{
			Name: host, ChapUser: "u", ChapSecret: "0123456789ab", ChapOldSecret: "0123456789ef", MutualUser: "m", MutualSecret: "0123456789ef",
		}), codes.InvalidArgument, "are the same"},
		{"short old secret", allow(&metav1.Initiator{
			Name: host, ChapUser: "u", ChapSecret: "0123456789ab", ChapOldSecret: "short",
		}), codes.InvalidArgument, "this one has 5"},
		{"rotate", allow(&metav1.Initiator{
			Name: host + "3", ChapUser: "u", ChapSecret: "0123456789ef", ChapOldSecret: "0123456789gh",
		}), codes.OK, ""},
		{"mutual is another's old one", allow(&metav1.Initiator{
			Name: host + "4", ChapUser: "u", ChapSecret: "0123456789ij", MutualUser: "m", MutualSecret: "0123456789gh",
		}), codes.InvalidArgument, "is the secret of initiator"},
		{"long secret permitted", long(strings.Repeat("x", 255)), codes.OK, ""},
		{"too long a secret", long(strings.Repeat("x", 256)), codes.InvalidArgument, "at most 255 bytes"},
		{"short with long ones", long("short"), codes.InvalidArgument, "this one has 5"},
		{"redirect", redirect("", "10.0.0.1:3260"), codes.OK, ""},
		{"redirect to IPv6", redirect("", "[fd00::1]:3260"), codes.OK, ""},
		{"redirect to a name", redirect("", "gw-2.example.com:3260"), codes.OK, ""},
		{"redirect off", redirect("", ""), codes.OK, ""},
		{"redirect off again", redirect("", ""), codes.NotFound, "no such redirect"},
		{"redirect from nowhere", redirect("nobody", "10.0.0.1:3260"), codes.NotFound, `no gateway "nobody"`},
		{"redirect without a port", redirect("", "10.0.0.1"), codes.InvalidArgument, "HOST:PORT"},
		{"redirect to port 0", redirect("", "10.0.0.1:0"), codes.InvalidArgument, "1 to 65535"},
		{"redirect to all", redirect("", "0.0.0.0:3260"), codes.InvalidArgument, "another host can connect"},
		{"redirect to a zone", redirect("", "[fe80::1%eth0]:3260"), codes.InvalidArgument, "another host can connect"},
		{"redirect to bare IPv6", redirect("", "fd00::1:3260"), codes.InvalidArgument, "in brackets"},
		{"redirect with a tag", redirect("", "10.0.0.1:3260,1"), codes.InvalidArgument, "no port"},
		{"redirect to what is no name", redirect("", "a b:3260"), codes.InvalidArgument, "host name"},
		{"bad initiator", allow(&metav1.Initiator{Name: "host"}), codes.InvalidArgument, "not an iSCSI name"},
		{"deny", func() error {
			_, err := admin.DenyInitiator(ctx, &metav1.DenyInitiatorRequest{Iqn: iqn, Initiator: "*"})
			return err
		}, codes.NotFound, "no entry for initiator *"},
		{"peer", func() error {
			_, err := admin.ReplacePeer(ctx, &metav1.ReplacePeerRequest{Copyset: 1, Peer: 999})
			return err
		}, codes.NotFound, "has no peer 999"},
		{"copyset", func() error { _, err := admin.ShowCopyset(ctx, &metav1.ShowCopysetRequest{Id: 99}); return err }, codes.NotFound, "copyset 99"},
		{"drain", func() error {
			_, err := admin.DrainChunkserver(ctx, &metav1.DrainChunkserverRequest{Id: 99})
			return err
		}, codes.NotFound, "chunkserver 99"},
		{"other cluster", register(ctx, w, &metav1.RegisterChunkserverRequest{
			Uuid: make([]byte, 16), ClusterId: []byte("0123456789abcdef"), Address: "a:1",
		}), codes.InvalidArgument, "not all zero"},
		{"other cluster's disk", register(ctx, w, &metav1.RegisterChunkserverRequest{
			Uuid: []byte("0123456789abcdef"), ClusterId: []byte("0123456789abcdef"), Address: "a:1",
		}), codes.PermissionDenied, "belongs to cluster 3031"},
		{"copied disk", register(ctx, w, &metav1.RegisterChunkserverRequest{
			Id: 2, Uuid: append(make([]byte, 15), 1), Address: "a:1",
		}), codes.PermissionDenied, "copied over another"},
		{"another disk", register(ctx, w, &metav1.RegisterChunkserverRequest{
			Id: 2, Uuid: []byte("0123456789abcdef"), Address: "a:1",
		}), codes.PermissionDenied, "another disk"},
		{"two at once", func() error {
			_, err := w.client.Node().ChunkserverHeartbeat(ctx, &metav1.ChunkserverHeartbeatRequest{Id: 1, Address: "a:1"})
			return err
		}, codes.FailedPrecondition, "says that it is the same one"},
		{"unknown chunkserver", func() error {
			_, err := w.client.Node().ChunkserverHeartbeat(ctx, &metav1.ChunkserverHeartbeatRequest{Id: 77})
			return err
		}, codes.NotFound, "register first"},
		{"unknown gateway", func() error {
			_, err := w.client.Node().Attach(ctx, &metav1.AttachRequest{Gateway: 5, Volume: 1, Initiator: host})
			return err
		}, codes.NotFound, "register first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.do(); c.code == codes.OK && err != nil {
				t.Error(err)
			} else if c.code != codes.OK {
				wantCode(t, err, c.code, c.text)
			}
		})
	}
}

func mapLUN(ctx context.Context, admin metav1.AdminClient, iqn string, lun uint32, volume string, ro bool) func() error {
	return func() error {
		_, err := admin.MapLUN(ctx, &metav1.MapLUNRequest{Iqn: iqn, Lun: lun, Volume: volume, ReadOnly: ro})
		return err
	}
}

func register(ctx context.Context, w *world, q *metav1.RegisterChunkserverRequest) func() error {
	return func() error { _, err := w.client.Node().RegisterChunkserver(ctx, q); return err }
}

// TestRepeatedCall repeats a creation as a client does whose answer was lost, and sends versions that do not fit.
func TestRepeatedCall(t *testing.T) {
	t.Parallel()
	d := start(t, testConfig("repeat"), Options{})
	eventually(t, "it is active", d.Active)
	admin := onlyTo(t, d.address)
	named := metadata.AppendToOutgoingContext(t.Context(), metaclient.RequestKey, "one")
	q := &metav1.CreateTargetRequest{Iqn: "iqn.2026-11.com.example:r"}
	must(admin.CreateTarget(named, q))(t)
	must(admin.CreateTarget(named, q))(t)
	_, err := admin.CreateTarget(metadata.AppendToOutgoingContext(t.Context(), metaclient.RequestKey, "two"), q)
	wantCode(t, err, codes.AlreadyExists, "already")
	_, err = admin.CreateTarget(t.Context(), q)
	wantCode(t, err, codes.AlreadyExists, "already")
	bare := metav1.NewAdminClient(plain(t, d.address))
	_, err = bare.ListTargets(t.Context(), &metav1.ListTargetsRequest{})
	wantCode(t, err, codes.FailedPrecondition, "ashlar-protocol")
	_, err = bare.ListTargets(metadata.AppendToOutgoingContext(t.Context(), metaclient.ProtocolKey, "7"), &metav1.ListTargetsRequest{})
	wantCode(t, err, codes.FailedPrecondition, `speaks protocol "7"`)
}

// TestResizeAndMoves makes a volume larger after access was taken away once, and moves a path between gateways.
func TestResizeAndMoves(t *testing.T) {
	_, w, admin := cluster(t, "resize")
	ctx, node := t.Context(), w.client.Node()
	const iqn, host = "iqn.2026-11.com.example:t", "iqn.2026-11.com.example:host"
	v := must(admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: "v", Size: 16 << 20}))(t)
	if n := len(v.GetRanges()[0].GetCopysets()); n != 1 {
		t.Errorf("one chunk in %d copysets", n)
	}
	must(admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: iqn}))(t)
	for range 2 { // deny and unmap raise once each
		if err := mapLUN(ctx, admin, iqn, 0, "v", false)(); err != nil {
			t.Fatal(err)
		}
		must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{Name: host}}))(t)
		must(admin.DenyInitiator(ctx, &metav1.DenyInitiatorRequest{Iqn: iqn, Initiator: host}))(t)
		must(admin.UnmapLUN(ctx, &metav1.UnmapLUNRequest{Iqn: iqn, Lun: 0}))(t)
	}
	before := w.count(1)
	v = must(admin.ResizeVolume(ctx, &metav1.ResizeVolumeRequest{Name: "v", Size: 1 << 30}))(t)
	if v.GetAccessGeneration() != 5 || len(v.GetRanges()) != 2 || v.GetRanges()[1].GetFirst() != 1 || v.GetRanges()[1].GetChunks() != 63 {
		t.Errorf("resized: %v", v)
	}
	eventually(t, "the volume's new copysets are told of the access generation", func() bool { return w.count(1) >= before+3 })
	if err := mapLUN(ctx, admin, iqn, 0, "v", false)(); err != nil {
		t.Fatal(err)
	}
	must(admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: iqn, Initiator: &metav1.Initiator{Name: "*"}}))(t)
	var epoch uint64
	for i := range 24 {
		g := must(node.RegisterGateway(ctx, &metav1.RegisterGatewayRequest{Name: fmt.Sprint("g", i%2)}))(t)
		if g.GetTpgt() != uint32(i%2)+1 || g.GetRelativePort() != g.GetTpgt() {
			t.Errorf("gateway %d got %v", i%2, g)
		}
		a := must(node.Attach(ctx, &metav1.AttachRequest{Gateway: g.GetId(), Volume: v.GetId(), Initiator: strings.ToUpper(host)}))(t)
		if a.GetEpoch() <= epoch || a.GetAccessGeneration() != 5 {
			t.Errorf("attach %d: %v", i, a)
		}
		epoch = a.GetEpoch()
	}
	v = must(admin.ShowVolume(ctx, &metav1.ShowVolumeRequest{Name: "v"}))(t)
	if a := v.GetAttachments(); len(a) != 1 || a[0].GetMoves() != 23 || a[0].GetGateway() != "g1" || a[0].GetInitiator() != host {
		t.Errorf("attachments %v", a)
	}
	st := must(admin.ClusterStatus(ctx, &metav1.ClusterStatusRequest{}))(t)
	if all := strings.Join(st.GetProblems(), "\n"); !strings.Contains(all, "moved between gateways 23 times") {
		t.Errorf("problems: %s", all)
	}
}
