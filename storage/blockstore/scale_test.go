package blockstore

import (
	"flag"
	"math/rand/v2"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/disk"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

var scaleGiB = flag.Int("scale-gib", 8, "size of the volume of BenchmarkScale, in GiB")

// dropFS forgets what is written to the data file, but for its header: a store of any size fits a small disk.
type dropFS struct{ vfs.FS }

func (d dropFS) Open(name string, flags vfs.OpenFlags) (vfs.File, error) {
	f, err := d.FS.Open(name, flags&^vfs.Direct)
	if err == nil && path.Base(name) == disk.BlocksName {
		f = dropFile{f}
	}
	return f, err
}

func (d dropFS) Space(string) (vfs.Space, error) {
	return vfs.Space{Total: 1 << 44, Free: 1 << 43}, nil
}

type dropFile struct{ vfs.File }

func (f dropFile) WriteAt(p []byte, off int64) (int, error) {
	if off == 0 {
		return f.File.WriteAt(p, off)
	}
	return len(p), nil
}

func (f dropFile) Preallocate(off, length int64, keepSize bool) error {
	if size, err := f.Size(); err != nil || keepSize || off+length <= size {
		return err
	}
	return f.Truncate(off + length)
}

func (f dropFile) PunchHole(int64, int64) error { return nil }
func (f dropFile) Sync() error                  { return nil }

// BenchmarkScale fills a volume in order, writes it over at random in 4 KiB pieces, and reports the memory that the store holds
// then for each TiB, the process' too, and the bytes of the index that are written for each byte of a random write. The data
// itself goes nowhere.
func BenchmarkScale(b *testing.B) {
	size := uint64(*scaleGiB) << 30
	for b.Loop() {
		before := heap()
		s, err := Open(dropFS{vfs.OS()}, path.Join(b.TempDir(), "store"), testID, DefaultOptions())
		if err != nil {
			b.Fatal(err)
		}
		c := create(b, s, 1)
		rng := rand.New(rand.NewPCG(1, 2))
		p, crcs := make([]byte, 1<<20), make([]uint32, 1<<20/layout.BlockSize)
		write := func(at uint64, n int) {
			for i := range n / layout.BlockSize {
				crcs[i] = rng.Uint32()
			}
			ch := layout.ChunkID{Volume: 1, Index: uint32(at / layout.DefaultChunkSize)}
			if err := c.Write(ch, uint32(at%layout.DefaultChunkSize), p[:n], crcs[:n/layout.BlockSize]); err != nil {
				b.Fatal(err)
			}
			select {
			case <-s.Pressure():
				mustCommit(b, s, c.Freeze(nil))
			default:
			}
		}
		for at := uint64(0); at < size; at += 1 << 20 {
			if write(at, 1<<20); at%(1<<30) == 0 {
				mustCommit(b, s, c.Freeze(nil))
			}
		}
		random := func(bytes uint64) {
			for range bytes / layout.BlockSize {
				write(rng.Uint64N(size/layout.BlockSize)*layout.BlockSize, layout.BlockSize)
			}
			mustCommit(b, s, c.Freeze(nil))
		}
		random(size)
		flushed, compacted := indexWrites(s)
		random(size / 2)
		flushed2, compacted2 := indexWrites(s)
		b.ReportMetric(float64(flushed2-flushed)/float64(size/2), "flush/B")
		b.ReportMetric(float64(compacted2-compacted)/float64(size/2), "compact/B")
		m := s.index.DB.Metrics()
		b.ReportMetric(float64(m.DiskSpaceUsage())/float64(size)*(1<<20), "MiB-index/TiB")
		u := s.Usage()
		// The cache and the overlay are bounded; the rest grows with the disk.
		b.ReportMetric(float64(heap()-before-u.Cache)/float64(size)*(1<<20), "MiB-heap/TiB")
		b.ReportMetric(float64(u.Cache)/(1<<20), "MiB-cache")
		b.ReportMetric(float64(rss())/(1<<20), "MiB-RSS")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// indexWrites returns the bytes that the index has written.
func indexWrites(s *Store) (flushed, compacted int64) {
	m := s.index.DB.Metrics()
	for i := range m.Levels {
		flushed += int64(m.Levels[i].TableBytesFlushed)
		compacted += int64(m.Levels[i].TableBytesCompacted)
	}
	return flushed, compacted
}

// rss returns the memory of the process, in bytes; 0 where the system does not tell.
func rss() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}
