package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/spf13/cobra"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		want uint64
		err  string
	}{
		{"4GiB", 4 << 30, ""},
		{"512MiB", 512 << 20, ""},
		{"1KiB", 1024, ""},
		{"2TiB", 2 << 40, ""},
		{"4294967296", 4 << 30, ""},
		{"0", 0, ""},
		{"4GB", 0, "write 4GiB"},
		{"4G", 0, "write 4GiB"},
		{"4gib", 0, "write 4GiB"},
		{"4 GiB", 0, "write 4GiB"},
		{"10b", 0, "write 10 "},
		{"", 0, "not a size"},
		{"GiB", 0, "not a size"},
		{"1.5GiB", 0, "not a size"},
		{"-1GiB", 0, "not a size"},
		{"4PiB", 0, "not a size"},
		{"0x10", 0, "not a size"},
		{"8388608TiB", 0, "too large"},
		{"18446744073709551616", 0, "not a size"},
	} {
		got, err := parseSize(c.in)
		switch {
		case c.err == "" && (err != nil || uint64(got) != c.want):
			t.Errorf("%q: %d, %v", c.in, got, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: %v, want %q", c.in, err, c.err)
		}
	}
	for n, want := range map[uint64]string{0: "0", 1023: "1023", 1024: "1KiB", 1536: "1.5KiB", 4 << 30: "4GiB", 5<<40 + 1: "5.0TiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"4GiB", "4GB", "1", "", "kk", "9k"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err == nil && n > 1<<63-1 {
			t.Errorf("%q is %d", s, n)
		}
	})
}

// fake is a metaserver with one of everything; it keeps what it was asked.
type fake struct {
	metav1.UnimplementedAdminServer
	mu     sync.Mutex
	asked  []proto.Message
	err    error
	during []*metav1.Operation // what ShowCopyset shows, one after the other
}

func serve(t *testing.T) (*fake, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asked = append(f.asked, req.(proto.Message))
		if f.err != nil {
			return nil, f.err
		}
		return next(ctx, req)
	}))
	metav1.RegisterAdminServer(g, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return f, l.Addr().String()
}

// run runs "ashlar ARGS" and returns what it printed.
func run(t *testing.T, meta string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	root := &cobra.Command{Use: "ashlar", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands()...)
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append(args, "--meta", meta))
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

var aVolume = &metav1.Volume{
	Id: 7, Name: "v", Size: 4 << 30, ChunkSize: 16 << 20, StripeUnit: 16 << 20, StripeCount: 1, LogicalBlock: 512, Naa: []byte{0x60, 1},
	Serial: "s", AccessGeneration: 2, CreatedUnixMs: 5, State: metav1.VolumeState_VOLUME_STATE_ACTIVE, Allocated: 8192,
	MappedTo: []string{"iqn.x/0"}, Ranges: []*metav1.Range{{Chunks: 256, Copysets: []uint64{3, 1}}},
	Attachments: []*metav1.Attachment{{Initiator: "iqn.h", InitiatorId: 1, Epoch: 4, Gateway: "g", SinceUnixMs: 6, Moves: 1}},
}

var aTarget = &metav1.Target{
	Iqn: "iqn.x", Luns: []*metav1.LUN{{Lun: 3, Volume: "v", VolumeId: 7, ReadOnly: true}},
	Initiators: []*metav1.Initiator{{Name: "iqn.h", ChapUser: "u", MutualUser: "m", ChapSecret: "never shown", ChapRotating: true}, {Name: "*"}},
	Redirects:  []*metav1.Redirect{{Gateway: "g", Address: "b:3260", Permanent: true}, {Address: "c:3260"}},
}

func aCopyset(op *metav1.Operation) *metav1.Copyset {
	return &metav1.Copyset{
		Id: 3, Pool: "default", Leader: 1, Quorum: true, Operation: op,
		Peers: []*metav1.Peer{{Id: 1, Chunkserver: 1, Up: true}, {Id: 9, Chunkserver: 4, Role: metav1.PeerRole_PEER_ROLE_LEARNER}},
	}
}

func (f *fake) CreateVolume(context.Context, *metav1.CreateVolumeRequest) (*metav1.Volume, error) {
	return aVolume, nil
}

func (f *fake) ListVolumes(context.Context, *metav1.ListVolumesRequest) (*metav1.ListVolumesReply, error) {
	return &metav1.ListVolumesReply{Volumes: []*metav1.Volume{aVolume}}, nil
}

func (f *fake) ListTargets(context.Context, *metav1.ListTargetsRequest) (*metav1.ListTargetsReply, error) {
	return &metav1.ListTargetsReply{}, nil
}

func (f *fake) ShowTarget(context.Context, *metav1.ShowTargetRequest) (*metav1.Target, error) {
	return aTarget, nil
}

var aSession = &metav1.Session{
	Gateway: "g", Tsih: 5, Isid: "00023d000001", Initiator: "iqn.h", Target: "iqn.x", User: "u", InFlight: 3, Window: 128, Commands: 1000,
	Failed: 7, Aborted: 1, ReadBytes: 1 << 30, WriteBytes: 4096, Keys: map[string]string{"MaxConnections": "4", "InitialR2T": "No"},
	Connections: []*metav1.Connection{{Initiator: "10.0.0.1:5", Portal: "10.0.0.2:3260", DataDigest: "CRC32C"}, {Cid: 1, Initiator: "10.0.0.1:6"}},
}

func (f *fake) ListSessions(context.Context, *metav1.ListSessionsRequest) (*metav1.ListSessionsReply, error) {
	return &metav1.ListSessionsReply{Sessions: []*metav1.Session{aSession}}, nil
}

func (f *fake) MapLUN(context.Context, *metav1.MapLUNRequest) (*metav1.Target, error) {
	return aTarget, nil
}

func (f *fake) AllowInitiator(context.Context, *metav1.AllowInitiatorRequest) (*metav1.Target, error) {
	return aTarget, nil
}

func (f *fake) RedirectTarget(context.Context, *metav1.RedirectTargetRequest) (*metav1.Target, error) {
	return aTarget, nil
}

func (f *fake) UnmapLUN(context.Context, *metav1.UnmapLUNRequest) (*metav1.Target, error) {
	return &metav1.Target{Iqn: "iqn.x", PendingGateways: []string{"g2 (last heard of 3s ago)"}}, nil
}

func (f *fake) DeleteVolume(context.Context, *metav1.DeleteVolumeRequest) (*metav1.DeleteVolumeReply, error) {
	return &metav1.DeleteVolumeReply{}, nil
}

func (f *fake) ReplacePeer(context.Context, *metav1.ReplacePeerRequest) (*metav1.Copyset, error) {
	return aCopyset(&metav1.Operation{Kind: "replace-peer", Step: "create", OldPeer: 2, NewPeer: 9, NewChunkserver: 4}), nil
}

func (f *fake) ShowCopyset(context.Context, *metav1.ShowCopysetRequest) (*metav1.Copyset, error) {
	if len(f.during) == 0 {
		return aCopyset(nil), nil
	}
	op := f.during[0]
	f.during = f.during[1:]
	return aCopyset(op), nil
}

func (f *fake) ClusterStatus(context.Context, *metav1.ClusterStatusRequest) (*metav1.ClusterStatusReply, error) {
	return &metav1.ClusterStatusReply{
		ClusterId: "c0", Problems: []string{"Chunkserver 2 is down: start it again."}, Capacity: 3 << 40, Used: 1 << 40,
		Metaservers:  []*metav1.Metaserver{{Name: "m1", Address: "a:1", Active: true}},
		Chunkservers: []*metav1.Chunkserver{{Id: 2, Address: "b:1", State: metav1.ChunkserverState_CHUNKSERVER_STATE_DOWN}},
		Gateways:     []*metav1.Gateway{{Id: 1, Name: "g", Portals: []string{"d:1"}, Up: true}},
	}, nil
}

func TestVolumeCommands(t *testing.T) {
	f, meta := serve(t)
	out, _, err := run(t, meta, "volume", "create", "v", "--size", "4GiB", "--block-size", "4096", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	q := f.asked[0].(*metav1.CreateVolumeRequest)
	if q.GetName() != "v" || q.GetSize() != 4<<30 || q.GetLogicalBlock() != 4096 || q.GetChunkSize() != 0 {
		t.Errorf("asked for %v", q)
	}
	const want = `{
  "id": 7,
  "name": "v",
  "state": "active",
  "size_bytes": 4294967296,
  "allocated_bytes": 8192,
  "logical_block_bytes": 512,
  "chunk_size_bytes": 16777216,
  "stripe_unit_bytes": 16777216,
  "stripe_count": 1,
  "naa": "6001",
  "serial": "s",
  "access_generation": 2,
  "created_unix_ms": 5,
  "mapped_to": [
    "iqn.x/0"
  ],
  "stalled": "",
  "ranges": [
    {
      "first_chunk": 0,
      "chunks": 256,
      "copysets": [
        3,
        1
      ]
    }
  ],
  "attachments": [
    {
      "initiator": "iqn.h",
      "initiator_id": 1,
      "epoch": 4,
      "gateway": "g",
      "since_unix_ms": 6,
      "moves": 1
    }
  ]
}
`
	if out != want {
		t.Errorf("got %s", out)
	}
	out, _, err = run(t, meta, "volume", "list")
	if err != nil || out != "NAME  SIZE  ALLOCATED  STATE   MAPPED TO\nv     4GiB  8KiB       active  iqn.x/0\n" {
		t.Errorf("list: %v\n%s", err, out)
	}
	if out, _, err = run(t, meta, "volume", "delete", "v"); err != nil || out != "volume v deleted\n" {
		t.Errorf("delete: %v\n%s", err, out)
	}
	if _, _, err = run(t, meta, "volume", "create", "v", "--size", "4GB"); err == nil || !strings.Contains(err.Error(), "write 4GiB") {
		t.Errorf("got %v", err)
	}
	if _, _, err = run(t, meta, "volume", "create", "v"); err == nil || !strings.Contains(err.Error(), `"size"`) {
		t.Errorf("got %v", err)
	}
	if _, _, err = run(t, meta, "volume", "list", "-o", "xml"); err == nil || !strings.Contains(err.Error(), "table or json") {
		t.Errorf("got %v", err)
	}
}

func TestTargetCommands(t *testing.T) {
	f, meta := serve(t)
	dir := t.TempDir()
	secret, mutual := filepath.Join(dir, "s"), filepath.Join(dir, "m")
	for name, text := range map[string]string{secret: "0123456789ab\r\n", mutual: "ba9876543210", filepath.Join(dir, "e"): "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _, err := run(t, meta, "target", "allow", "iqn.x", "--initiator", "iqn.h", "--chap-user", "u", "--chap-secret-file", secret,
		"--mutual-user", "m", "--mutual-secret-file", mutual)
	if err != nil {
		t.Fatal(err)
	}
	i := f.asked[0].(*metav1.AllowInitiatorRequest).GetInitiator()
	if i.GetChapSecret() != "0123456789ab" || i.GetMutualSecret() != "ba9876543210" || i.GetName() != "iqn.h" {
		t.Errorf("asked for %v", i)
	}
	if strings.Contains(out, "never shown") || !strings.Contains(out, "(mutual CHAP, users u and m, the old secret is valid as well)") || !strings.Contains(out, "* (no authentication)") ||
		!strings.Contains(out, "v (read-only)") {
		t.Errorf("shown: %s", out)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--chap-user", "u"}, "go together"},
		{[]string{"--chap-secret-file", secret}, "go together"},
		{[]string{"--chap-user", "u", "--chap-secret-file", filepath.Join(dir, "none")}, "--chap-secret-file"},
		{[]string{"--chap-user", "u", "--chap-secret-file", filepath.Join(dir, "e")}, "is empty"},
	} {
		_, _, err := run(t, meta, append([]string{"target", "allow", "iqn.x", "--initiator", "iqn.h"}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	if _, _, err = run(t, meta, "target", "map", "iqn.x", "--lun", "3", "--volume", "v", "--read-only"); err != nil {
		t.Fatal(err)
	}
	if q := f.asked[len(f.asked)-1].(*metav1.MapLUNRequest); q.GetLun() != 3 || q.GetVolume() != "v" || !q.GetReadOnly() {
		t.Errorf("asked for %v", q)
	}
	for _, format := range []string{"table", "json"} {
		out, errs, err := run(t, meta, "target", "unmap", "iqn.x", "--lun", "3", "-o", format)
		if err != nil || !strings.Contains(errs, "gateway g2 (last heard of 3s ago) has not confirmed the change") {
			t.Errorf("a gateway that is pending: %v %q", err, errs)
		}
		if strings.Contains(out, `"pending_gateways"`) != (format == "json") {
			t.Errorf("shown as %s: %s", format, out)
		}
	}
	if out, _, err = run(t, meta, "target", "list", "-o", "json"); err != nil || out != "[]\n" {
		t.Errorf("an empty list: %v %q", err, out)
	}
	if out, _, err = run(t, meta, "target", "show", "iqn.x", "-o", "json"); err != nil || strings.Contains(out, "never shown") {
		t.Errorf("%v %s", err, out)
	}
}

func TestSessionCommands(t *testing.T) {
	f, meta := serve(t)
	out, _, err := run(t, meta, "session", "list", "--target", "iqn.x", "--initiator", "iqn.h", "--gateway", "g", "--keys")
	if err != nil {
		t.Fatal(err)
	}
	if q := f.asked[0].(*metav1.ListSessionsRequest); q.GetTarget() != "iqn.x" || q.GetInitiator() != "iqn.h" || q.GetGateway() != "g" {
		t.Errorf("asked for %v", q)
	}
	for _, want := range []string{"10.0.0.1:5, 10.0.0.1:6", "3/128", "1GiB", "InitialR2T=No MaxConnections=4", "ABORTED"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in: %s", want, out)
		}
	}
	out, _, err = run(t, meta, "session", "list", "-o", "json")
	if err != nil || !strings.Contains(out, `"data_digest": "CRC32C"`) || !strings.Contains(out, `"MaxConnections": "4"`) {
		t.Errorf("%v %s", err, out)
	}
	out, _, err = run(t, meta, "target", "show", "iqn.x")
	if err != nil || !strings.Contains(out, "1000 commands (3/128 in flight, 7 failed, 1 aborted), 1GiB read, 4KiB written") {
		t.Errorf("%v %s", err, out)
	}
}

func TestAllowOptionsAndRedirect(t *testing.T) {
	f, meta := serve(t)
	dir := t.TempDir()
	secret, old := filepath.Join(dir, "s"), filepath.Join(dir, "o")
	for name, text := range map[string]string{secret: "0123456789ab\n", old: "0123456789cd\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := run(t, meta, "target", "allow", "iqn.x", "--initiator", "iqn.h", "--chap-user", "u", "--chap-secret-file", secret,
		"--chap-old-secret-file", old, "--long-secrets"); err != nil {
		t.Fatal(err)
	}
	q := f.asked[0].(*metav1.AllowInitiatorRequest)
	if q.GetInitiator().GetChapSecret() != "0123456789ab" || q.GetInitiator().GetChapOldSecret() != "0123456789cd" || !q.GetLongSecrets() {
		t.Errorf("asked for %v", q)
	}
	out, _, err := run(t, meta, "target", "redirect", "iqn.x", "--gateway", "g", "--to", "b:3260", "--permanent")
	if err != nil || !strings.Contains(out, "from gateway g to b:3260, permanently") || !strings.Contains(out, "from every gateway to c:3260, temporarily") {
		t.Errorf("%v, shown: %s", err, out)
	}
	r := f.asked[1].(*metav1.RedirectTargetRequest)
	if d := r.GetRedirect(); r.GetIqn() != "iqn.x" || d.GetGateway() != "g" || d.GetAddress() != "b:3260" || !d.GetPermanent() {
		t.Errorf("asked for %v", r)
	}
	if _, _, err := run(t, meta, "target", "redirect", "iqn.x", "--off"); err != nil {
		t.Fatal(err)
	}
	if d := f.asked[2].(*metav1.RedirectTargetRequest).GetRedirect(); d.GetAddress() != "" || d.GetGateway() != "" {
		t.Errorf("asked for %v", d)
	}
	for _, args := range [][]string{{}, {"--off", "--to", "b:3260"}} {
		if _, _, err := run(t, meta, append([]string{"target", "redirect", "iqn.x"}, args...)...); err == nil || !strings.Contains(err.Error(), "--off") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestStatusCommand(t *testing.T) {
	_, meta := serve(t)
	out, _, err := run(t, meta, "cluster", "status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"problems: 1", "Chunkserver 2 is down: start it again.", "a:1, active", "1TiB of 3TiB", "d:1, up"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _, err = run(t, meta, "cluster", "status", "-o", "json")
	var v map[string]any
	if err != nil || json.Unmarshal([]byte(out), &v) != nil || v["healthy"] != false || v["capacity_bytes"] != float64(3<<40) {
		t.Errorf("%v %s", err, out)
	}
	if cs := v["chunkservers"].([]any)[0].(map[string]any); cs["state"] != "down" || cs["id"] != float64(2) {
		t.Errorf("chunkserver %v", cs)
	}
}

func TestReplacePeer(t *testing.T) {
	f, meta := serve(t)
	op := func(step string, done uint64) *metav1.Operation {
		return &metav1.Operation{Kind: "replace-peer", Step: step, OldPeer: 2, NewPeer: 9, NewChunkserver: 4, DoneBytes: done, TotalBytes: 4096}
	}
	f.during = []*metav1.Operation{op("copy", 1024), op("copy", 1024), op("copy", 4096)}
	out, errs, err := run(t, meta, "copyset", "replace-peer", "3", "--peer", "2", "--to", "4", "--wait")
	if err != nil {
		t.Fatal(err)
	}
	if q := f.asked[0].(*metav1.ReplacePeerRequest); q.GetCopyset() != 3 || q.GetPeer() != 2 || q.GetChunkserver() != 4 {
		t.Errorf("asked for %v", q)
	}
	if n := strings.Count(errs, "\n"); n != 3 || !strings.Contains(errs, "copy (1KiB of 4KiB)") {
		t.Errorf("progress:\n%s", errs)
	}
	if !strings.Contains(out, "Peer 9") || strings.Contains(out, "Operation") {
		t.Errorf("at the end:\n%s", out)
	}
	if _, _, err = run(t, meta, "copyset", "show", "x"); err == nil || !strings.Contains(err.Error(), "ashlar copyset list") {
		t.Errorf("got %v", err)
	}
}

func TestErrors(t *testing.T) {
	f, meta := serve(t)
	f.err = status.Error(codes.FailedPrecondition, `volume "v" is mapped as iqn.x/0: unmap it first`)
	_, _, err := run(t, meta, "volume", "delete", "v")
	if err == nil || err.Error() != `volume "v" is mapped as iqn.x/0: unmap it first` {
		t.Errorf("got %v", err)
	}
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the cause is lost: %v", status.Code(err))
	}
	l, lerr := net.Listen("tcp", "127.0.0.1:0")
	if lerr != nil {
		t.Fatal(lerr)
	}
	gone := l.Addr().String()
	l.Close()
	_, _, err = run(t, gone, "volume", "list", "--timeout", "300ms")
	if err == nil || !strings.Contains(err.Error(), gone) || !strings.Contains(err.Error(), "See --meta and ASHLAR_META") {
		t.Errorf("got %v", err)
	}
	if _, _, err = run(t, "nonsense", "volume", "list"); err == nil || !strings.Contains(err.Error(), "give HOST:PORT") {
		t.Errorf("got %v", err)
	}
}

// TestLeaves: the verbs work below a command that brings nothing.
func TestLeaves(t *testing.T) {
	t.Setenv(metaEnv, "m:1,m:2")
	for _, c := range Commands() {
		for _, leaf := range c.Commands() {
			for _, flag := range []string{"meta", "output", "timeout"} {
				if leaf.Flags().Lookup(flag) == nil {
					t.Errorf("%s %s has no --%s of its own", c.Name(), leaf.Name(), flag)
				}
			}
			if got := leaf.Flags().Lookup("meta").DefValue; got != "m:1,m:2" {
				t.Errorf("%s %s: --meta is %q", c.Name(), leaf.Name(), got)
			}
		}
	}
}

func TestSanitizeText(t *testing.T) {
	for _, c := range []struct {
		z    *metav1.Sanitize
		want string
	}{
		{nil, ""},
		{&metav1.Sanitize{Size: 1 << 30, Done: 1 << 29}, "unmaps, 50 % done"},
		{&metav1.Sanitize{Size: 1 << 30, Passes: 2, Done: 1 << 29}, "overwrites 2 times, 25 % done"},
		{&metav1.Sanitize{Size: 1 << 30, Passes: 1, Failed: true}, "overwrites 1 times, 0 % done, failed: "},
	} {
		if got := sanitizeText(c.z); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%v: %q", c.z, got)
		}
	}
}
