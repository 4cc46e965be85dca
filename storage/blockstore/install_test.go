package blockstore

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestReadBesideTheSwitch reads while the index makes an image, or a removal, durable, of a copyset of which no leaf is in memory,
// as after a start: the old bytes or ErrRemoved, never zeroes.
func TestReadBesideTheSwitch(t *testing.T) {
	source := create(t, newDisk(t).open(t), 1)
	newer := pattern(2, 100*layout.BlockSize)
	mustWrite(t, source, chunk0, 0, newer)
	if err := source.TakeVersion(1, 7); err != nil {
		t.Fatal(err)
	}
	stream := imageOf(t, source, nil)
	for name, remove := range map[string]bool{"image": false, "removal": true} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			older := pattern(1, len(newer))
			s := d.open(t)
			c := create(t, s, 1)
			mustWrite(t, c, chunk0, 0, older)
			if err := c.TakeVersion(1, 7); err != nil {
				t.Fatal(err)
			}
			mustCommit(t, s, c.Freeze(nil))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			var stop atomic.Bool
			begun, goOn := make(chan struct{}), make(chan struct{})
			opts := d.opts
			opts.IndexFS = errorfs.Wrap(d.index, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpFileSync && stop.CompareAndSwap(true, false) {
					close(begun)
					<-goOn
				}
				return nil
			}))
			s, err := Open(d.fs, testDir, testID, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close() //nolint:errcheck // nothing is asked of it any more
			if c, err = s.Copyset(1); err != nil {
				t.Fatal(err)
			}
			in, err := s.NewInstaller(1)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Abort()
			if _, err := in.Write(stream); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			stop.Store(true)
			go func() {
				if remove {
					done <- s.Remove(1)
					return
				}
				_, err := in.Finish()
				done <- err
			}()
			<-begun
			got := make([]byte, len(older))
			if _, err := c.Read(chunk0, 0, got, nil); err != nil || !bytes.Equal(got, older) {
				t.Errorf("meanwhile: %v, zeroes: %v", err, bytes.Equal(got, make([]byte, len(got))))
			}
			if _, err := c.ReadVersion(7, chunk0, 0, got, nil); err != nil || !bytes.Equal(got, older) {
				t.Errorf("version meanwhile: %v, zeroes: %v", err, bytes.Equal(got, make([]byte, len(got))))
			}
			close(goOn)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(chunk0, 0, got, nil); remove && !errors.Is(err, ErrRemoved) || !remove && (err != nil || !bytes.Equal(got, newer)) {
				t.Errorf("afterwards: %v", err)
			}
			expectNoLeaves(t, s, 1)
		})
	}
}

// expectNoLeaves checks that the index has nothing of the incarnations up to last.
func expectNoLeaves(t *testing.T, s *Store, last uint64) {
	t.Helper()
	for _, kind := range []byte{extent.KeyLeaf, extent.KeyVolume} {
		if err := s.index.EachIncarnation(kind, func(incarnation uint64) error {
			if incarnation <= last {
				t.Errorf("the index has keys of kind %d of incarnation %d", kind, incarnation)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}
