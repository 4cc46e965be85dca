package gateway

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sanitize"
	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// awaitDone waits for the end of a SANITIZE.
func awaitDone(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
	}
}

// TestSanitizeGoesOverAllOfIt: an overwrite writes each byte as often as it says, an erasure unmaps all and writes the tail
// that is no whole block; every medium of the volume sees how it is.
func TestSanitizeGoesOverAllOfIt(t *testing.T) {
	f := newFakeStore()
	ms := testMediums(t, f)
	defer ms.erasures.stop()
	ms.erasures.rate = 1 << 40
	m, other := ms.Open(testVolume, "iqn.a"), ms.Open(testVolume, "iqn.b")
	const size = 1<<20 - 512
	done, err := m.Sanitize(t.Context(), sanitize.Order{Passes: 3, Block: make([]byte, 512)}, size)
	must(t, err)
	awaitDone(t, done)
	var bytes uint64
	for _, r := range f.requests {
		if r.Op == chunkclient.Write {
			bytes += uint64(r.Length)
		}
	}
	if bytes != 3*size || other.Sanitizing().State != sanitize.Idle {
		t.Fatalf("%d bytes, %+v", bytes, other.Sanitizing())
	}
	f.requests = nil
	done, err = other.Sanitize(t.Context(), sanitize.Order{}, size)
	must(t, err)
	awaitDone(t, done)
	if r := f.requests; len(r) != 2 || r[0].Op != chunkclient.Discard || r[0].Length != 1<<20-4096 ||
		r[1].Op != chunkclient.Write || r[1].Length != 3584 {
		t.Fatalf("%+v", r)
	}
}

// TestSanitizeOutlivesItsSession: what was begun goes on when the session has gone, and nobody begins a second one.
func TestSanitizeOutlivesItsSession(t *testing.T) {
	f := newFakeStore()
	ms := testMediums(t, f)
	ms.erasures.rate = 1 // never gets on after the first piece
	m, other := ms.Open(testVolume, "iqn.a"), ms.Open(testVolume, "iqn.b")
	done, err := m.Sanitize(t.Context(), sanitize.Order{Passes: 2, Block: make([]byte, 512)}, 1<<20)
	must(t, err)
	ms.Release(m)
	for range 1000 {
		if other.Sanitizing().Progress > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if s := other.Sanitizing(); s.State != sanitize.Running || s.Progress != 32768 {
		t.Fatalf("%+v", s)
	}
	if _, err := other.Sanitize(t.Context(), sanitize.Order{}, 1<<20); !errors.Is(err, scsi.ErrSanitizing) {
		t.Fatal(err)
	}
	other.ExitSanitize() // is for failures
	if again := ms.Open(testVolume, "iqn.a"); again != m || again.Sanitizing().State != sanitize.Running {
		t.Fatal("the volume is used again")
	}
	ms.erasures.stop()
	awaitDone(t, done)
	if s := other.Sanitizing(); s.State != sanitize.Failed {
		t.Fatalf("%+v", s)
	}
}

// TestSanitizeFails: no space, or a right that is taken away, leaves the volume as failed until somebody says so.
func TestSanitizeFails(t *testing.T) {
	f := newFakeStore()
	ms := testMediums(t, f)
	defer ms.erasures.stop()
	var told error
	ms.erasures.ended = func(_ layout.VolumeID, err error) { told = err }
	m := ms.Open(testVolume, "iqn.a")
	must(t, m.Write(context.Background(), make([]byte, 512), 0))
	f.answer = chunkclient.NoSpace
	done, err := m.Sanitize(t.Context(), sanitize.Order{Passes: 1, Block: make([]byte, 512), Exit: true}, 1<<20)
	must(t, err)
	awaitDone(t, done)
	ms.erasures.stop()
	if s := m.Sanitizing(); s.State != sanitize.Failed || !s.Exit || !errors.Is(told, scsi.ErrNoSpace) {
		t.Fatalf("%+v, %v", s, told)
	}
	m.ExitSanitize()
	if s := m.Sanitizing(); s.State != sanitize.Idle {
		t.Fatalf("%+v", s)
	}
	if _, err := m.Sanitize(t.Context(), sanitize.Order{}, 1<<20); !errors.Is(err, scsi.ErrSanitizing) {
		t.Fatal("a stopped gateway begins one")
	}
}
