package gateway

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// AwaitReset takes awaiting, or fails with awaitErr.
func (f *fakeMeta) AwaitReset(ctx context.Context, m *metav1.AwaitResetRequest, _ ...grpc.CallOption) (*metav1.AwaitResetReply, error) {
	f.mu.Lock()
	f.awaited = append(f.awaited, m.GetVersion())
	took, err := f.awaiting, f.awaitErr
	f.mu.Unlock()
	if err == nil {
		err = sleep(ctx, took)
	}
	return &metav1.AwaitResetReply{PendingGateways: []string{"two"}}, err
}

// ResetAwaited says left after asking.
func (f *fakeMeta) ResetAwaited(
	ctx context.Context, m *metav1.ResetAwaitedRequest, _ ...grpc.CallOption,
) (*metav1.ResetAwaitedReply, error) {
	asking := f.asking
	if m.GetVolume() == uint64(f.unanswered) {
		asking = time.Hour
	}
	err := sleep(ctx, asking)
	return &metav1.ResetAwaitedReply{LeftMs: uint32(f.left.Milliseconds())}, err
}

// TestResetIsAnswered: the answer of a reset waits for the other gateways, and no longer than it has to.
func TestResetIsAnswered(t *testing.T) {
	for _, c := range []struct {
		name     string
		lose     int
		awaiting time.Duration
		err      error
		want     time.Duration
		awaits   int
	}{
		{"they act", 0, 30 * time.Millisecond, nil, 30 * time.Millisecond, 1},
		{"they do not", 0, time.Hour, nil, resetPromise, 1},
		{"the metaserver goes", 0, 0, status.Error(codes.Unavailable, "gone"), resetPromise, 1},
		{"a metaserver without the call", 0, 0, status.Error(codes.Unimplemented, "old"), 0, 1},
		{"an answer is lost", 1, 0, nil, registerPause, 1},
		{"no metaserver", 1 << 30, 0, nil, resetAsk, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := newFakeMeta(3)
				f.lose, f.awaiting, f.awaitErr = c.lose, c.awaiting, c.err
				runs(t, r)
				began, done := time.Now(), make(chan time.Duration, 2)
				r.reset(testVolume, &reservation.Request{Action: reservation.UnitReset}, func() { done <- time.Since(began) })
				if took := <-done; took != c.want {
					t.Errorf("answered after %v, want %v", took, c.want)
				}
				synctest.Wait()
				if len(done) > 0 || len(f.awaited) != c.awaits {
					t.Errorf("answered %d times more, awaited %v", len(done), f.awaited)
				}
				if c.lose <= 1 {
					return
				}
				f.mu.Lock()
				f.lose = 0
				f.mu.Unlock()
				if err := r.flush(t.Context(), testVolume); err != nil || len(f.sent()) < 3 || len(f.awaited) != 0 {
					t.Errorf("with a metaserver again %v, %d attempts, %v awaited", err, len(f.sent()), f.awaited)
				}
			})
		})
	}
}

// TestResetsAreJoined: resets that come while one waits to be sent are told with it; one that comes later is told by itself.
func TestResetsAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFakeMeta(3)
		var answered atomic.Int32
		for since := range uint64(3) {
			r.reset(testVolume, &reservation.Request{Action: reservation.UnitReset, Since: since}, func() { answered.Add(1) })
		}
		runs(t, r)
		synctest.Wait()
		if got := f.sent(); len(got) != 1 || got[0].GetSince() != 2 || answered.Load() != 3 {
			t.Errorf("sent %v, %d answered", got, answered.Load())
		}
		r.reset(testVolume, &reservation.Request{Action: reservation.UnitReset}, func() { answered.Add(1) })
		synctest.Wait()
		if len(f.sent()) != 2 || answered.Load() != 4 {
			t.Errorf("sent %v, %d answered", f.sent(), answered.Load())
		}
	})
}

// TestResetIsAnsweredBehindOthers: without a metaserver a reset is answered in time also when another one, or the end of a
// reservation, waits for one before it.
func TestResetIsAnsweredBehindOthers(t *testing.T) {
	for name, before := range map[string]func(r *reserver){
		"the end of a reservation": func(r *reserver) {
			r.end(testVolume, &reservation.Request{Action: reservation.NexusLost, Since: 5})
		},
		"a reset": func(r *reserver) {
			answered := make(chan struct{})
			r.reset(testVolume, &reservation.Request{Action: reservation.UnitReset}, func() { close(answered) })
			<-answered
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := newFakeMeta(3)
				f.lose = 1 << 30
				runs(t, r)
				before(r)
				began := time.Now()
				answers := make(chan time.Duration, 4)
				for range 2 {
					r.reset(testVolume, &reservation.Request{Action: reservation.UnitReset}, func() { answers <- time.Since(began) })
				}
				time.Sleep(time.Minute)
				for range 2 {
					select {
					case took := <-answers:
						if want := resetAsk + resetPromise; took != want {
							t.Errorf("answered after %v, want %v", took, want)
						}
					default:
						t.Error("not answered")
					}
				}
				f.mu.Lock()
				f.lose = 0
				f.mu.Unlock()
				err := r.flush(t.Context(), testVolume)
				synctest.Wait()
				if err != nil || len(f.awaited) != 0 || len(answers) != 0 {
					t.Errorf("with a metaserver again %v, %v awaited, answered %d times more", err, f.awaited, len(answers))
				}
			})
		})
	}
}

// TestResetsOfTwoUnits: the word about one logical unit is acted on while it holds, however long that about another one takes.
func TestResetsOfTwoUnits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFakeMeta(3)
		f.asking, f.left, f.unanswered = 10*time.Millisecond, 500*time.Millisecond, testVolume+1
		units, all := map[layout.VolumeID]*scsi.LogicalUnit{}, map[uint64]*scsi.Reservations{}
		for id := testVolume; id <= testVolume+1; id++ {
			units[id] = newTestUnit(t)
			units[id].SetReservations(unreserved(3))
			q := &reservation.Request{Action: reservation.UnitReset, Nexus: reservation.Nexus{Initiator: "iqn.a", Port: 1}}
			all[uint64(id)] = &scsi.Reservations{Access: 4, State: new(reservation.State).Apply(q).State}
		}
		r.unit = func(id layout.VolumeID) *scsi.LogicalUnit { return units[id] }
		r.port = func() uint16 { return 2 }
		began := time.Now()
		go r.judgeAll(t.Context(), all)
		for i, want := range []time.Duration{f.asking, resetAsk} {
			id := testVolume + layout.VolumeID(i)
			time.Sleep(want - time.Since(began))
			synctest.Wait()
			now := units[id].Reservations()
			if now != all[uint64(id)] || now.State.Events[0].Abort != (id == testVolume) {
				t.Errorf("after %v unit %d knows %+v", want, id, now.State)
			}
		}
	})
}

// TestResetElsewhere: commands are ended by the reset of another gateway as long as its answer waits, counted from the question.
func TestResetElsewhere(t *testing.T) {
	for _, c := range []struct {
		name         string
		port         uint16
		asking, left time.Duration
		abort        bool
	}{
		{"in time", 2, 10 * time.Millisecond, 500 * time.Millisecond, true},
		{"answered", 2, 10 * time.Millisecond, 0, false},
		{"the word took longer than it holds", 2, 300 * time.Millisecond, 200 * time.Millisecond, false},
		{"no word", 2, time.Hour, time.Hour, false},
		{"a reset of this gateway", 1, 10 * time.Millisecond, 500 * time.Millisecond, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := newFakeMeta(3)
				f.asking, f.left = c.asking, c.left
				unit := newTestUnit(t)
				unit.SetReservations(unreserved(3))
				r.unit = func(layout.VolumeID) *scsi.LogicalUnit { return unit }
				r.port = func() uint16 { return c.port }
				nexus := reservation.Nexus{Initiator: "iqn.a", Port: 1}
				next := new(reservation.State).Apply(&reservation.Request{Action: reservation.UnitReset, Nexus: nexus}).State
				r.judgeAll(t.Context(), map[uint64]*scsi.Reservations{uint64(testVolume): {Access: 4, State: next}})
				if next.Events[0].Abort != c.abort {
					t.Errorf("abort is %v", next.Events[0].Abort)
				}
			})
		})
	}
}
