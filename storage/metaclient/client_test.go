package metaclient

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a metaserver that answers as it is told.
type fake struct {
	metav1.UnimplementedAdminServer
	metav1.UnimplementedNodeServer
	address string

	mu       sync.Mutex
	active   string // not its own: NotActive{active}; "-" for none
	fail     []error
	hang     chan struct{}
	calls    int
	requests []string
	targets  map[string]bool
	exports  []*metav1.Exports // one stream sends each and ends
}

func serve(t *testing.T) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{address: l.Addr().String(), targets: map[string]bool{"t": true}}
	g := grpc.NewServer(grpc.UnaryInterceptor(f.intercept))
	metav1.RegisterAdminServer(g, f)
	metav1.RegisterNodeServer(g, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return f
}

func standby(active string) error {
	st, err := status.New(codes.FailedPrecondition, "standby").WithDetails(&metav1.NotActive{Active: active})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func (f *fake) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	f.mu.Lock()
	f.calls++
	f.requests = append(f.requests, strings.Join(md.Get(RequestKey), ","))
	active, hang := f.active, f.hang
	var fail error
	if len(f.fail) > 0 {
		fail, f.fail = f.fail[0], f.fail[1:]
	}
	f.mu.Unlock()
	switch {
	case strings.Join(md.Get(ProtocolKey), ",") != "1":
		return nil, status.Error(codes.Internal, "no protocol")
	case active == "-":
		return nil, standby("")
	case active != "":
		return nil, standby(active)
	case hang != nil:
		<-hang
	}
	r, err := next(ctx, req)
	if fail != nil {
		return nil, fail
	}
	return r, err
}

func (f *fake) set(active string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = active
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fake) ListVolumes(context.Context, *metav1.ListVolumesRequest) (*metav1.ListVolumesReply, error) {
	return &metav1.ListVolumesReply{Volumes: []*metav1.Volume{{Name: f.address}}}, nil
}

func (f *fake) ShowTarget(context.Context, *metav1.ShowTargetRequest) (*metav1.Target, error) {
	return &metav1.Target{Iqn: "shown"}, nil
}

func (f *fake) DeleteTarget(_ context.Context, r *metav1.DeleteTargetRequest) (*metav1.DeleteTargetReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.targets[r.GetIqn()] {
		return nil, status.Error(codes.NotFound, "no target")
	}
	delete(f.targets, r.GetIqn())
	return &metav1.DeleteTargetReply{}, nil
}

func (f *fake) UnmapLUN(context.Context, *metav1.UnmapLUNRequest) (*metav1.Target, error) {
	return nil, status.Error(codes.NotFound, "no LUN")
}

func (f *fake) CreateVolume(context.Context, *metav1.CreateVolumeRequest) (*metav1.Volume, error) {
	return nil, status.Error(codes.AlreadyExists, "there is one")
}

func (f *fake) WatchExports(_ *metav1.WatchExportsRequest, s grpc.ServerStreamingServer[metav1.Exports]) error {
	f.mu.Lock()
	active, list := f.active, f.exports
	f.mu.Unlock()
	if active != "" {
		return standby(active)
	}
	for _, e := range list {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "gone")
}

func client(t *testing.T, o Options, fakes ...*fake) *Client {
	t.Helper()
	var list []string
	for _, f := range fakes {
		list = append(list, f.address)
	}
	c, err := Dial(list, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// who asks and returns the address of the one that answered.
func who(t *testing.T, c *Client) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := c.Admin().ListVolumes(ctx, &metav1.ListVolumesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetVolumes()[0].GetName()
}

func TestFollow(t *testing.T) {
	a, b := serve(t), serve(t)
	a.set(b.address)
	c := client(t, Options{}, a) // b is told by a
	if got := who(t, c); got != b.address {
		t.Errorf("%s answered, want %s", got, b.address)
	}
	if who(t, c); a.count() != 1 {
		t.Errorf("the standby was asked %d times, want once", a.count())
	}
	// The active one ends: the other one takes over.
	b.set(a.address)
	a.set("")
	if got := who(t, c); got != a.address {
		t.Errorf("%s answered, want %s", got, a.address)
	}
}

func TestNobody(t *testing.T) {
	a, b := serve(t), serve(t)
	a.set("-")
	b.set("-")
	c := client(t, Options{}, a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	_, err := c.Admin().ListVolumes(ctx, &metav1.ListVolumesRequest{})
	if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "is etcd reachable?") {
		t.Errorf("got %v", err)
	}
	if a.count() == 0 || b.count() == 0 || a.count()+b.count() > 30 {
		t.Errorf("asked %d and %d times", a.count(), b.count())
	}
	// Both say that the other one is active: no endless loop at full speed.
	a.set(b.address)
	b.set(a.address)
	before := a.count() + b.count()
	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err = c.Admin().ListVolumes(ctx, &metav1.ListVolumesRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if n := a.count() + b.count() - before; n > 60 {
		t.Errorf("asked %d times in half a second", n)
	}
}

func TestHanging(t *testing.T) {
	a, b := serve(t), serve(t)
	hang := make(chan struct{})
	defer close(hang)
	a.hang = hang
	c := client(t, Options{AttemptTimeout: 200 * time.Millisecond}, a, b)
	if got := who(t, c); got != b.address {
		t.Errorf("%s answered", got)
	}
	if got := who(t, c); got != b.address || a.count() != 1 {
		t.Errorf("the hanging one was asked %d times", a.count())
	}
}

func TestDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	b := serve(t)
	c, err := Dial([]string{gone, b.address}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := who(t, c); got != b.address {
		t.Errorf("%s answered", got)
	}
}

// TestRefusal: what is refused for good is returned at once.
func TestRefusal(t *testing.T) {
	a := serve(t)
	c := client(t, Options{}, a)
	_, err := c.Admin().CreateVolume(t.Context(), &metav1.CreateVolumeRequest{})
	if status.Code(err) != codes.AlreadyExists || a.count() != 1 {
		t.Errorf("got %v after %d calls", err, a.count())
	}
	a.fail = []error{status.Error(codes.FailedPrecondition, "mapped")}
	if _, err = c.Admin().ListVolumes(t.Context(), &metav1.ListVolumesRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = c.Admin().ListVolumes(ctx, &metav1.ListVolumesRequest{}); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

// TestLostAnswer: a removal whose answer was lost is found done; every attempt of a call has the same name.
func TestLostAnswer(t *testing.T) {
	a := serve(t)
	c := client(t, Options{}, a)
	a.fail = []error{status.Error(codes.Unavailable, "lost")}
	if _, err := c.Admin().DeleteTarget(t.Context(), &metav1.DeleteTargetRequest{Iqn: "t"}); err != nil {
		t.Errorf("deleting: %v", err)
	}
	if len(a.requests) != 2 || a.requests[0] != a.requests[1] || len(a.requests[0]) != 32 {
		t.Errorf("requests %q", a.requests)
	}
	if _, err := c.Admin().DeleteTarget(t.Context(), &metav1.DeleteTargetRequest{Iqn: "t"}); status.Code(err) != codes.NotFound {
		t.Errorf("deleting what is not there: %v", err)
	}
	a.fail = []error{status.Error(codes.Unavailable, "lost")}
	if r, err := c.Admin().UnmapLUN(t.Context(), &metav1.UnmapLUNRequest{Iqn: "t"}); err != nil || r.GetIqn() != "shown" {
		t.Errorf("unmapping: %v, %v", r, err)
	}
}

func TestWatch(t *testing.T) {
	a, b := serve(t), serve(t)
	a.exports = []*metav1.Exports{{Revision: 1}, {Revision: 3}}
	b.exports = []*metav1.Exports{{Revision: 2}, {Revision: 4}}
	c := client(t, Options{}, a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var got []int64
	enough := errors.New("enough")
	err := c.WatchExports(ctx, 1, func(e *metav1.Exports) error {
		got = append(got, e.GetRevision())
		if e.GetRevision() == 3 {
			a.set(b.address)
		}
		if e.GetRevision() == 4 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	for i, r := range got {
		if i > 0 && r < got[i-1] {
			t.Errorf("revisions %v", got)
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	b.set("-")
	a.set("-")
	if err := c.WatchExports(ctx, 1, func(*metav1.Exports) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestDial(t *testing.T) {
	if _, err := Dial(nil, Options{}); !errors.Is(err, ErrNoAddress) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", "host", "a:b:c"} {
		if _, err := Dial([]string{bad}, Options{}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	c, err := Dial([]string{"a:1", "a:1"}, Options{})
	if err != nil || len(c.Addresses()) != 1 {
		t.Errorf("%v, %v", c, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := c.Admin().ListVolumes(ctx, &metav1.ListVolumesRequest{}); status.Code(err) != codes.Canceled || ctx.Err() != nil {
		t.Errorf("after closing: %v", err)
	}
}
