package gateway

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// unreserved is what is known of a volume that was never reserved.
func unreserved(access layout.AccessGeneration) *scsi.Reservations {
	return &scsi.Reservations{Access: uint64(access), State: &reservation.State{}}
}

// fakeMeta is a metaserver that loses the first answers.
type fakeMeta struct {
	metav1.NodeClient
	mu    sync.Mutex
	lose  int
	deny  bool
	wrong string // the initiator whose requests are wrong
	got   []*metav1.ReserveRequest
	reply *metav1.VolumeReservations
	// of resets
	awaited      []uint64
	awaiting     time.Duration
	awaitErr     error
	asking, left time.Duration
	unanswered   layout.VolumeID // the volume for which no word comes
}

func (f *fakeMeta) answer() (*metav1.VolumeReservations, error) {
	switch {
	case f.lose > 0:
		f.lose--
		return nil, status.Error(codes.Unavailable, "lost")
	case f.deny:
		return nil, status.Error(codes.FailedPrecondition, "denied")
	}
	return f.reply, nil
}

func (f *fakeMeta) Reserve(_ context.Context, m *metav1.ReserveRequest, _ ...grpc.CallOption) (*metav1.ReserveReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, proto.CloneOf(m))
	if f.wrong != "" && m.GetNexus().GetInitiator() == f.wrong {
		return nil, status.Error(codes.InvalidArgument, "wrong")
	}
	r, err := f.answer()
	return &metav1.ReserveReply{Reservations: r}, err
}

func (f *fakeMeta) ShowReservations(
	context.Context, *metav1.ShowReservationsRequest, ...grpc.CallOption,
) (*metav1.VolumeReservations, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answer()
}

func newFakeMeta(access uint64) (*fakeMeta, *reserver) {
	f := &fakeMeta{reply: &metav1.VolumeReservations{Volume: uint64(testVolume), AccessGeneration: access, Version: 1}}
	return f, newReserver(f, func() uint64 { return 7 }, zap.NewNop())
}

// newTestUnit makes a logical unit.
func newTestUnit(t *testing.T) *scsi.LogicalUnit {
	t.Helper()
	u, err := scsi.NewLogicalUnit(newUnit(&metav1.Volume{
		Size: 1 << 20, LogicalBlock: 512, StripeUnit: 1 << 20, Naa: append([]byte{0x60}, make([]byte, 15)...), Serial: "1",
	}))
	must(t, err)
	return u
}

// runs runs r until the test ends.
func runs(t *testing.T, r *reserver) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// sent returns what was asked for.
func (f *fakeMeta) sent() []*metav1.ReserveRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

func TestReserveIsRepeatedUnderOneName(t *testing.T) {
	f, r := newFakeMeta(3)
	f.lose = 1
	unit := newTestUnit(t)
	r.unit = func(layout.VolumeID) *scsi.LogicalUnit { return unit }
	n := reservation.Nexus{Initiator: "iqn.a", ISID: reservation.ISID{1}, Port: 2}
	q := &reservation.Request{Nexus: n, Action: reservation.RegisterAndMove, Destination: reservation.Nexus{Initiator: "iqn.b", AnyISID: true, Port: 3}}
	if _, now, err := r.change(t.Context(), testVolume, q); err != nil || now.Access != 3 || unit.Reservations() != now {
		t.Fatal(now, err)
	}
	if len(f.got) != 2 || !proto.Equal(f.got[0], f.got[1]) || len(f.got[0].GetRequest()) != 16 {
		t.Fatalf("sent %v", f.got)
	}
	m := f.got[0]
	if newNexus(m.GetNexus()) != n || newNexus(m.GetDestination()) != q.Destination || m.GetGateway() != 7 {
		t.Fatalf("sent %v", m)
	}
	f.deny = true
	if _, _, err := r.change(t.Context(), testVolume, q); !errors.Is(err, scsi.ErrAccessRevoked) {
		t.Fatal(err)
	}
}

// TestEndsGoFirst: what ended a reservation of SPC-2 is told before anything else about the volume.
func TestEndsGoFirst(t *testing.T) {
	f, r := newFakeMeta(3)
	f.lose = 1
	r.end(testVolume, &reservation.Request{Action: reservation.NexusLost, Since: 5})
	r.reset(testVolume, &reservation.Request{Action: reservation.UnitReset, Since: 6}, func() {})
	runs(t, r)
	if _, _, err := r.change(t.Context(), testVolume, &reservation.Request{Action: reservation.LegacyReserve}); err != nil {
		t.Fatal(err)
	}
	got := f.sent()
	if len(got) != 4 || got[1].GetSince() != 5 || got[2].GetSince() != 6 || got[3].GetAction() != uint32(reservation.LegacyReserve) {
		t.Fatalf("sent %v", got)
	}
	if !proto.Equal(got[0], got[1]) || len(got[0].GetRequest()) != requestLen || bytes.Equal(got[1].GetRequest(), got[2].GetRequest()) {
		t.Fatalf("the names are wrong: %v", got)
	}
}

// TestEndThatIsRefused: an end that the metaserver never takes does not keep what comes after it waiting. One that has no answer
// does.
func TestEndThatIsRefused(t *testing.T) {
	f, r := newFakeMeta(3)
	f.wrong = "iqn.wrong"
	r.end(testVolume, &reservation.Request{Action: reservation.NexusLost, Nexus: reservation.Nexus{Initiator: "iqn.wrong", Port: 1}})
	r.end(testVolume, &reservation.Request{Action: reservation.NexusLost, Since: 8})
	runs(t, r)
	if _, _, err := r.change(t.Context(), testVolume, &reservation.Request{Action: reservation.LegacyReserve}); err != nil {
		t.Fatal(err)
	}
	if got := f.sent(); len(got) != 3 || got[1].GetSince() != 8 {
		t.Fatalf("sent %v", got)
	}
	f.mu.Lock()
	f.lose = 1 << 30
	f.mu.Unlock()
	r.end(testVolume, &reservation.Request{Action: reservation.NexusLost, Since: 9})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.flush(ctx, testVolume); err == nil {
		t.Fatal("an end was given up because there is no metaserver")
	}
}

// TestJudged: an access generation is taken over with the reservations that go with it, never an older one.
func TestJudged(t *testing.T) {
	f, r := newFakeMeta(3)
	m := &medium{owner: &mediums{reserver: r}, mediumKey: mediumKey{testVolume, "iqn.a"}, refreshing: make(chan struct{}, 1)}
	first := unreserved(2)
	m.judged(first)
	f.reply.Type, f.reply.Registrations = 7, []*metav1.Registration{{Nexus: &metav1.Nexus{Initiator: "iqn.b", Isid: make([]byte, 6), Port: 1}, Key: 1}}
	must(t, m.Refresh(t.Context(), first))
	if m.mu.access != 3 || m.mu.known.State.Type != 7 {
		t.Fatalf("%+v", m.mu.known)
	}
	f.deny = true // not asked: more than first is known by now
	must(t, m.Refresh(t.Context(), first))
	m.judged(first)
	if m.mu.access != 3 || m.mu.known == first {
		t.Fatal("an older generation was taken over")
	}
	if err := m.Refresh(t.Context(), m.mu.known); !errors.Is(err, scsi.ErrAccessRevoked) || m.mu.access != 3 {
		t.Fatal("a refusal changed something, or was not told", err)
	}
	if _, err := m.Reservations(t.Context()); !errors.Is(err, scsi.ErrAccessRevoked) {
		t.Fatal(err)
	}
}

func TestReservationMessages(t *testing.T) {
	bad := &metav1.VolumeReservations{Volume: 1, Type: 1}
	if _, err := newReservations(bad); err == nil {
		t.Error("a reservation without a holder was taken")
	}
	m := &metav1.VolumeReservations{
		Volume: 1, Version: 4, Legacy: &metav1.Nexus{Initiator: "iqn.a", Isid: []byte{1, 2, 3, 4, 5, 6}, Port: 9}, LegacySince: 4,
		Events: []*metav1.ReservationEvent{
			{Version: 3, Attention: 3, Abort: true, Nexuses: []*metav1.Nexus{{Initiator: "iqn.b", Port: 1}}},
			{Version: 4, Attention: 5, Everybody: true, By: &metav1.Nexus{Initiator: "iqn.c", Port: 2}},
			{Version: 4, Attention: 99},
		},
	}
	m.Settings, m.SavedSettings = uint32(reservation.WriteProtect), uint32(reservation.DescriptorSense)
	now, err := newReservations(m)
	want := reservation.Modes{Now: reservation.WriteProtect, Saved: reservation.DescriptorSense}
	if err == nil && (now.State.Modes != want || now.State.Events[1].By.Initiator != "iqn.c") {
		t.Errorf("%+v", now.State)
	}
	if q := reserveRequest(&reservation.Request{Settings: want.Now, Save: true}); q.GetSettings() != m.GetSettings() || !q.GetSave() {
		t.Errorf("%v", q)
	}
	if err != nil || now.State.Legacy.Port != 9 || len(now.State.Events) != 2 || !now.State.Events[0].Nexuses[0].AnyISID {
		t.Errorf("%+v, %v", now, err)
	}
}

// TestRefreshIsShared: of many commands that wait for a metaserver which does not answer, no two wait one after the other for
// long.
func TestRefreshIsShared(t *testing.T) {
	f, r := newFakeMeta(3)
	f.lose = 1 << 30
	m := &medium{owner: &mediums{reserver: r}, mediumKey: mediumKey{testVolume, "iqn.a"}, refreshing: make(chan struct{}, 1)}
	seen := unreserved(3)
	m.judged(seen)
	began := time.Now()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { must(t, m.Refresh(t.Context(), seen)) })
	}
	wg.Wait()
	if took := time.Since(began); took > 3*refreshTimeout {
		t.Errorf("32 commands waited %v", took)
	}
}
