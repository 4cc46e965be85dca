package heartbeat

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// stuckDisk is a file system on which nothing is written while it is held.
type stuckDisk struct {
	vfs.FS
	held    atomic.Bool
	release chan struct{}
}

func newStuckDisk() *stuckDisk {
	d := &stuckDisk{release: make(chan struct{})}
	d.FS = vfs.NewFault(vfs.NewMem(), func(op vfs.Op) vfs.Fault {
		if d.held.Load() && op.Kind != vfs.OpReadAt {
			<-d.release
		}
		return vfs.Fault{}
	})
	return d
}

// wait polls until f is true.
func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

// beats returns how many heartbeats came, and the last one.
func (m *fakeMeta) last() (int, *metav1.ChunkserverHeartbeatRequest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.beats), m.beats[len(m.beats)-1]
}

// TestStuckDisk: while the disk does not answer heartbeats go on and tell so, and leaders are moved; what has to be stored
// first is not obeyed, and is when the disk answers again.
func TestStuckDisk(t *testing.T) {
	disk := newStuckDisk()
	i, err := OpenIdentity(disk, "d")
	if err != nil {
		t.Fatal(err)
	}
	m, h := &fakeMeta{cluster: [16]byte{9}}, &fakeHost{}
	if err := Register(t.Context(), m, i, config(), 100); err != nil {
		t.Fatal(err)
	}
	if _, err := i.raise(5); err != nil {
		t.Fatal(err)
	}
	c := config()
	logs, seen := observer.New(zap.InfoLevel)
	c.Logger = zap.New(logs)
	m.reply = &metav1.ChunkserverHeartbeatReply{ElectionRevision: 5, IntervalMs: 1, Orders: []*metav1.Order{
		{Copyset: 2, Do: &metav1.Order_Create{Create: &metav1.CreatePeer{Peer: 21, Join: true}}},
		{Copyset: 4, Do: &metav1.Order_Transfer{Transfer: &metav1.TransferLeader{Peer: 41}}},
	}}
	disk.held.Store(true)
	b := New(m, h, i, c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	wait(t, "five heartbeats", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.beats) >= 5 })
	wait(t, "the order to move a leader", func() bool {
		return len(seen.FilterField(zap.Uint64("copyset", 4)).All()) > 0 // the fake host has no such copyset
	})
	m.mu.Lock()
	m.reply = &metav1.ChunkserverHeartbeatReply{ElectionRevision: 6, IntervalMs: 1, Orders: m.reply.GetOrders()}
	m.mu.Unlock()
	n, last := m.last()
	wait(t, "five more", func() bool { now, _ := m.last(); return now >= n+5 })
	h.mu.Lock()
	if len(h.joined) != 0 || last.GetElectionRevision() != 5 || last.GetDisk().GetStalledMs() != 3000 {
		t.Errorf("joined %v before the disk answered, %v", h.joined, last)
	}
	h.mu.Unlock()
	disk.held.Store(false)
	close(disk.release)
	wait(t, "the orders of the new election", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		_, last := m.last()
		return len(h.joined) > 0 && last.GetElectionRevision() == 6
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestGeneration: it rises once an answer came and not before, is on the disk when it is told, and survives.
func TestGeneration(t *testing.T) {
	b, m, _, fs := newBeat(t)
	first := b.id.Generation()
	if err := Register(t.Context(), m, b.id, config(), 100); err != nil {
		t.Fatal(err)
	}
	m.beatErr = status.Error(codes.Unavailable, "no metaserver")
	if _, err := b.beat(); err == nil || b.id.Generation() != first || first != m.register[0].GetGeneration() {
		t.Errorf("generation %d without an answer (%v), registered with %d", b.id.Generation(), err, m.register[0].GetGeneration())
	}
	m.beatErr = nil
	m.reply = &metav1.ChunkserverHeartbeatReply{ElectionRevision: 1}
	for range 3 {
		if _, err := b.beat(); err != nil {
			t.Fatal(err)
		}
	}
	if _, last := m.last(); last.GetGeneration() != first+1 || b.id.Generation() != first+1 {
		t.Errorf("generation %d, told %d, want %d", b.id.Generation(), last.GetGeneration(), first+1)
	}
	b.id.generation.raised.Store(new(time.Now().Add(-generationEvery)))
	if _, err := b.beat(); err != nil || b.id.Generation() != first+2 {
		t.Errorf("after a while: %d, %v", b.id.Generation(), err)
	}
	again, err := OpenIdentity(fs, "d")
	if err != nil || again.Generation() != first+2 {
		t.Errorf("opened again: %d, %v", again.Generation(), err)
	}
}

// TestRefusedWhileServing: an older copy that started without a metaserver ends when one answers.
func TestRefusedWhileServing(t *testing.T) {
	for _, at := range []string{"heartbeat", "registration"} {
		b, m, _, _ := newBeat(t)
		m.beatErr = status.Error(codes.PermissionDenied, "an older copy")
		if at == "registration" {
			m.beatErr = status.Error(codes.NotFound, "register first")
			b.meta = refusing{m}
		}
		err := b.Run(t.Context())
		if !errors.As(err, new(*RefusedError)) || !strings.Contains(err.Error(), "refuses") {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// TestNews: what is not kept is no news, or each heartbeat would wait for the disk.
func TestNews(t *testing.T) {
	b, _, _, _ := newBeat(t)
	long := map[layout.ChunkserverID]string{3: strings.Repeat("a", addressMax+1)}
	if b.id.news(long) || !b.id.news(map[layout.ChunkserverID]string{3: "a:1"}) {
		t.Error("news")
	}
	all := map[layout.ChunkserverID]string{}
	for id := range layout.ChunkserverID(addressesMax) {
		all[id+1] = "a:1"
	}
	if err := b.id.learn(all); err != nil || b.id.news(map[layout.ChunkserverID]string{addressesMax + 1: "a:1"}) {
		t.Errorf("one too many: %v", err)
	}
}

// TestOrdersThatComeAgain: an order that can not be carried out does not make heartbeats come faster and faster.
func TestOrdersThatComeAgain(t *testing.T) {
	b, m, _, _ := newBeat(t)
	m.reply = &metav1.ChunkserverHeartbeatReply{IntervalMs: 1, Orders: []*metav1.Order{
		{Copyset: 4, Do: &metav1.Order_Transfer{Transfer: &metav1.TransferLeader{Peer: 41}}},
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*intervalMin)
	defer cancel()
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n, _ := m.last(); n < 2 || n > 11 {
		t.Errorf("%d heartbeats in %v", n, 10*intervalMin)
	}
}
