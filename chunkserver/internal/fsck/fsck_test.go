package fsck

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/heartbeat"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/smallfile"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// denied is a file system one file of which may not be opened.
type denied struct {
	*vfs.Mem
	name string
}

func (d denied) Open(name string, flags vfs.OpenFlags) (vfs.File, error) {
	if d.name != "" && strings.HasSuffix(name, d.name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return d.Mem.Open(name, flags)
}

// TestPrevented: files of a newer release, and files that may not be opened, are no damage: nothing is reported.
func TestPrevented(t *testing.T) {
	const dir = "data"
	newer := func(name, magic string) func(*vfs.Mem) error {
		return func(m *vfs.Mem) error {
			f := smallfile.File{FS: m, Dir: dir, Name: name, Magic: magic, Version: 99}
			return f.Replace(make([]byte, 64))
		}
	}
	for name, c := range map[string]struct {
		change func(*vfs.Mem) error
		denied string
		flip   int // the byte of the copyset's replicated state that is wrong
		want   error
	}{
		"damage":                         {flip: 9},
		"the identity":                   {change: newer("CHUNKSERVER", "ashlarcs"), want: &smallfile.VersionError{}},
		"the generation":                 {change: newer("GENERATION", "ashlargn"), want: &smallfile.VersionError{}},
		"the peers":                      {change: newer("PEERS", "ashlarpr"), want: &smallfile.VersionError{}},
		"a state":                        {want: copyset.ErrVersion},
		"no permission for the identity": {denied: "/CHUNKSERVER", want: fs.ErrPermission},
		"no permission for the peers":    {denied: "/PEERS", want: fs.ErrPermission},
		"no permission for the data":     {denied: "/blocks", want: fs.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			m, index := vfs.NewMem(), pebblevfs.NewMem()
			id, err := heartbeat.OpenIdentity(m, dir)
			if err = errors.Join(err, id.Claim([16]byte{3}, 7)); err != nil {
				t.Fatal(err)
			}
			owner := blockstore.Identity{Cluster: [16]byte{3}, Chunkserver: 7}
			s, err := blockstore.Open(m, dir+"/store", owner, blockstore.Options{GrowStep: blockstore.GrowStepMin, IndexFS: index})
			if err != nil {
				t.Fatal(err)
			}
			p, err := s.Create(5)
			if err != nil {
				t.Fatal(err)
			}
			state := copyset.New(nil, 0, 0).Marshal()
			state[min(c.flip, len(state)-1)] ^= 0x80
			if err := errors.Join(s.Commit([]*blockstore.Frozen{p.Freeze(state)}), s.Close()); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				if err := c.change(m); err != nil {
					t.Fatal(err)
				}
			}
			r, err := Run(t.Context(), dir, Options{FS: denied{m, c.denied}, IndexFS: index, Data: true})
			var version *smallfile.VersionError
			switch {
			case c.want == nil && (err != nil || r.Total == 0):
				t.Errorf("%+v, %v", r, err)
			case errors.As(c.want, &version) && !errors.As(err, &version), version == nil && !errors.Is(err, c.want):
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}
