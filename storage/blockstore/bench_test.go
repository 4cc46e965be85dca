package blockstore

import (
	"fmt"
	"path"
	"runtime"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// benchStore opens a store on the operating system's file system.
func benchStore(b *testing.B) *Store {
	b.Helper()
	opts := DefaultOptions()
	opts.Reserve = 0
	s, err := Open(vfs.OS(), path.Join(b.TempDir(), "store"), testID, opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

const benchSpan = 256 << 20 // bytes that the benchmarks go across

// place returns the i-th of the places of n bytes in benchSpan, in a scattered order.
func place(i, n int) (layout.ChunkID, uint32) {
	at := uint64(i) * 0x9e3779b97f4a7c15 >> 20 % uint64(benchSpan/n) * uint64(n)
	return layout.ChunkID{Volume: 1, Index: uint32(at / layout.DefaultChunkSize)}, uint32(at % layout.DefaultChunkSize)
}

func benchWrite(b *testing.B, n int) {
	s := benchStore(b)
	c := create(b, s, 1)
	p := pattern(1, n)
	crcs := blockCRCs(p)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ch, off := place(i, n)
		if err := c.Write(ch, off, p, crcs); err != nil {
			b.Fatal(err)
		}
		if i++; i%(64<<20/n) == 0 {
			b.StopTimer()
			mustCommit(b, s, c.Freeze(nil))
			b.StartTimer()
		}
	}
}

func benchRead(b *testing.B, n int) {
	s := benchStore(b)
	c := create(b, s, 1)
	p := pattern(1, 1<<20)
	for at := 0; at < benchSpan; at += 1 << 20 {
		ch := layout.ChunkID{Volume: 1, Index: uint32(at / layout.DefaultChunkSize)}
		mustWrite(b, c, ch, uint32(at%layout.DefaultChunkSize), p)
	}
	mustCommit(b, s, c.Freeze(nil))
	dst, crcs := make([]byte, n), make([]uint32, 0, n/layout.BlockSize)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ch, off := place(i, n)
		if _, err := c.Read(ch, off, dst, crcs); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkWrite4K(b *testing.B) { benchWrite(b, 4<<10) }
func BenchmarkWrite1M(b *testing.B) { benchWrite(b, 1<<20) }
func BenchmarkRead4K(b *testing.B)  { benchRead(b, 4<<10) }
func BenchmarkRead1M(b *testing.B)  { benchRead(b, 1<<20) }

// BenchmarkWrite512 merges a sector into a block.
func BenchmarkWrite512(b *testing.B) {
	s := benchStore(b)
	c := create(b, s, 1)
	p := pattern(1, 4096)
	mustWrite(b, c, chunk0, 0, p)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Write(chunk0, 512, p[:512], nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommit makes 1000 scattered blocks durable.
func BenchmarkCommit(b *testing.B) {
	s := benchStore(b)
	c := create(b, s, 1)
	p := pattern(1, 4096)
	i := 0
	for b.Loop() {
		b.StopTimer()
		for range 1000 {
			ch, off := place(i, 4096)
			i++
			mustWrite(b, c, ch, off, p)
		}
		b.StartTimer()
		mustCommit(b, s, c.Freeze(nil))
	}
}

// BenchmarkOpen opens stores whose index maps the GiB in its name, written in scattered 4 KiB blocks: no run is longer
// than a block. It reports the memory that an open store holds.
func BenchmarkOpen(b *testing.B) {
	for _, gib := range []int{4, 64} {
		b.Run(fmt.Sprintf("%dGiB", gib), func(b *testing.B) {
			dir := path.Join(b.TempDir(), "store")
			opts := DefaultOptions()
			fillIndex(b, dir, opts, gib)
			before := heap()
			for b.Loop() {
				s, err := Open(vfs.OS(), dir, testID, opts)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				b.ReportMetric(float64(heap()-before)/float64(gib)*1024/(1<<20), "MiB-heap/TiB")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fillIndex makes a store with a sparse data file and an index that maps all of it.
func fillIndex(b *testing.B, dir string, opts Options, gib int) {
	b.Helper()
	s, err := Open(vfs.OS(), dir, testID, opts)
	if err != nil {
		b.Fatal(err)
	}
	c := create(b, s, 1)
	blocks := uint64(gib) << 30 / layout.BlockSize
	batch := s.index.DB.NewBatch()
	for i := uint64(0); i < blocks; i += extent.LeafBlocks {
		l := extent.NewLeaf(0, 0)
		for j := range uint64(extent.LeafBlocks) {
			at := (i + j) * 0x9e3779b1 % blocks // a permutation: blocks is a power of two
			l.Set(uint32(j), extent.Entry{Addr: extent.Addr(at + 1), CRC: uint32(at * 0x85ebca6b)})
		}
		const perChunk = layout.DefaultChunkSize / layout.BlockSize
		id := extent.LeafID{Chunk: layout.ChunkID{Volume: 1, Index: uint32(i / perChunk)}, Index: uint32(i % perChunk / extent.LeafBlocks)}
		if err := batch.Set(extent.AppendLeafKey(nil, c.incarnation(), id), l.AppendTo(nil), nil); err != nil {
			b.Fatal(err)
		}
		if batch.Len() > 4<<20 {
			if err := s.index.Commit(batch); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
	if err := s.commitOrPoison(batch); err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	f, err := vfs.OS().Open(path.Join(dir, "blocks"), vfs.ReadWrite)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	if err := f.Truncate(int64(blocks+1) * layout.BlockSize); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkChecksum computes the CRC32C of a block.
func BenchmarkChecksum(b *testing.B) {
	p := pattern(1, layout.BlockSize)
	b.SetBytes(layout.BlockSize)
	for b.Loop() {
		_ = extent.Checksum(p)
	}
}
