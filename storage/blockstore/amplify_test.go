package blockstore

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

var (
	amplifyDir    = flag.String("amplify-dir", "", "directory on the disk for BenchmarkAmplification")
	amplifyGiB    = flag.Int("amplify-gib", 1, "size of the volume of BenchmarkAmplification, in GiB")
	amplifyRounds = flag.Float64("amplify-rounds", 1, "how often the measurement goes over the volume")
)

const (
	amplifyCopysets = 12   // of a chunkserver of a development cluster
	amplifyTail     = 1024 // entries that a checkpoint leaves in the log of a copyset
	amplifyHeader   = 96   // of a write's entry
)

// replica is the part of a chunkserver that writes to the disk: raft log, store, and checkpoints when the store asks.
type replica struct {
	b     *testing.B
	log   *raftlog.Log
	store *Store
	sets  []*Copyset
	next  []uint64
	// written are the bytes of the log and of the data file.
	written [2]atomic.Int64
	rng     *rand.Rand
	data    []byte
}

// side keeps large payloads in the data file, as a chunkserver does.
type side struct{ s *Store }

func (x side) Tail(e *raftpb.Entry) (int, uint32) {
	if n := len(e.GetData()) - amplifyHeader; n >= DefaultDeferBelow {
		return n, layout.CRC(e.GetData()[amplifyHeader:])
	}
	return 0, 0
}

func (x side) Store(tail []byte) ([]raftlog.Extent, error) {
	runs, err := x.s.StoreBlocks(tail)
	var out []raftlog.Extent
	for _, r := range runs {
		out = append(out, raftlog.Extent{Start: uint64(r.Start), Blocks: r.N})
	}
	return out, err
}
func (x side) Sync() error { return x.s.SyncBlocks() }
func (x side) Load(extents []raftlog.Extent, tail []byte) error {
	return x.s.LoadBlocks(blocksOf(extents), tail)
}
func (x side) Release(extents []raftlog.Extent) { x.s.ReleaseBlocks(blocksOf(extents)) }

func blocksOf(extents []raftlog.Extent) (runs []Blocks) {
	for _, x := range extents {
		runs = append(runs, Blocks{Start: Addr(x.Start), N: x.Blocks})
	}
	return runs
}

func newReplica(b *testing.B) *replica {
	b.Helper()
	dir := *amplifyDir
	if dir == "" {
		dir = b.TempDir()
	} else {
		dir = path.Join(dir, strings.ReplaceAll(b.Name(), "/", "-"))
		b.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	r := &replica{b: b, rng: rand.New(rand.NewPCG(1, 2)), data: make([]byte, 1<<20+amplifyHeader)}
	for i := range r.data {
		r.data[i] = byte(r.rng.Uint32())
	}
	fs := vfs.NewFault(vfs.OS(), func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpWriteAt {
			k := 0
			if op.Base() == "blocks" {
				k = 1
			}
			r.written[k].Add(op.Length)
		}
		return vfs.Fault{}
	})
	var err error
	opts := DefaultOptions()
	opts.Reserve = 0
	if r.store, err = Open(fs, dir+"/store", testID, opts); err != nil {
		b.Fatal(err)
	}
	if r.log, err = raftlog.Open(fs, dir+"/log", raftlog.Options{Identity: [16]byte{1}}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.log.Close(); err != nil {
			b.Error(err)
		}
		if err := r.store.Close(); err != nil {
			b.Error(err)
		}
	})
	if err := r.log.Attach(side{r.store}, func([]raftlog.Extent) error { return nil }); err != nil {
		b.Fatal(err)
	}
	for i := range amplifyCopysets {
		r.sets = append(r.sets, create(b, r.store, layout.CopysetID(i+1)))
		r.next = append(r.next, 1)
	}
	return r
}

// write appends writes of n bytes at the given places of the volume with one sync, and applies them.
func (r *replica) write(n int, at ...uint64) {
	r.b.Helper()
	updates := make([]raftlog.Update, 0, len(at))
	type where struct {
		set   int
		index uint64
		data  []byte
	}
	var places []where
	for _, off := range at {
		set := int(off / layout.DefaultChunkSize % amplifyCopysets)
		index, term, typ := r.next[set], uint64(1), raftpb.EntryNormal
		r.next[set]++
		commit := index - 1
		data := bytes.Clone(r.data[:amplifyHeader+n])
		for b := amplifyHeader; b < len(data); b += layout.BlockSize { // no two blocks have the same checksum
			binary.LittleEndian.PutUint64(data[b:], r.rng.Uint64())
		}
		e := &raftpb.Entry{Term: &term, Index: &index, Type: &typ, Data: data}
		k := len(updates)
		for i := range updates {
			if updates[i].Copyset == layout.CopysetID(set+1) {
				k = i
			}
		}
		if k == len(updates) {
			updates = append(updates, raftlog.Update{Copyset: layout.CopysetID(set + 1)})
		}
		updates[k].Entries = append(updates[k].Entries, e)
		updates[k].HardState = &raftpb.HardState{Term: &term, Vote: &term, Commit: &commit}
		places = append(places, where{set, index, data[amplifyHeader:]})
	}
	if err := r.log.Append(updates); err != nil {
		r.b.Fatal(err)
	}
	for i, off := range at {
		ch := layout.ChunkID{Volume: 1, Index: uint32(off / layout.DefaultChunkSize)}
		c, p := r.sets[places[i].set], places[i].data
		g, _ := r.log.Group(c.ID())
		var err error
		if x := g.Extents(places[i].index, 1); x != nil {
			err = c.Adopt(ch, uint32(off%layout.DefaultChunkSize), p, nil, blocksOf(x))
		} else {
			err = c.Write(ch, uint32(off%layout.DefaultChunkSize), p, nil)
		}
		if err != nil {
			r.b.Fatal(err)
		}
		c.SetApplied(places[i].index, 1)
	}
	select {
	case <-r.store.Pressure():
		r.checkpoint()
	default:
	}
	for r.log.Segments() > 3 {
		c, err := r.log.Compact()
		if err != nil {
			r.b.Fatal(err)
		}
		if !c.More {
			break
		}
	}
	if _, err := r.log.PrepareSpare(); err != nil {
		r.b.Fatal(err)
	}
}

// checkpoint makes what was applied durable and cuts the log.
func (r *replica) checkpoint() {
	r.b.Helper()
	var fs []*Frozen
	for _, c := range r.sets {
		fs = append(fs, c.Freeze(r.data[:4096]))
	}
	mustCommit(r.b, r.store, fs...)
	var updates []raftlog.Update
	for i, f := range fs {
		g, ok := r.log.Group(r.sets[i].ID())
		applied, _ := f.Applied()
		if ok && applied > amplifyTail {
			if first, err := g.FirstIndex(); err == nil && applied-amplifyTail >= first {
				updates = append(updates, raftlog.Update{Copyset: r.sets[i].ID(), TruncateTo: applied - amplifyTail})
			}
		}
	}
	if err := r.log.Append(updates); err != nil {
		r.b.Fatal(err)
	}
}

// wrote is how many bytes were written so far.
type wrote struct{ log, blocks, flushed, compacted, process int64 }

func (r *replica) wrote() wrote {
	w := wrote{log: r.written[0].Load(), blocks: r.written[1].Load()}
	w.flushed, w.compacted = indexWrites(r.store)
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return w // not Linux
	}
	for line := range strings.Lines(string(io)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			w.process, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return w
}

// BenchmarkAmplification measures the bytes that a replica writes to its disk for each byte of a write, in the steady state:
// log, blocks, index, and what the process as a whole has the device write, as the system counts it.
func BenchmarkAmplification(b *testing.B) {
	size := uint64(*amplifyGiB) << 30
	for _, c := range []struct {
		name       string
		n, perSync int
		random     bool
	}{
		{"random4K", 4 << 10, 7, true}, {"sequential1M", 1 << 20, 2, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				r := newReplica(b)
				for at := uint64(0); at < size; at += 1 << 20 {
					r.write(1<<20, at)
				}
				at := make([]uint64, c.perSync)
				seq := uint64(0)
				round := func(bytes int64) {
					for ; bytes > 0; bytes -= int64(c.n * c.perSync) {
						for i := range at {
							if c.random {
								at[i] = r.rng.Uint64N(size/uint64(c.n)) * uint64(c.n)
							} else {
								at[i], seq = seq%size, seq+uint64(c.n)
							}
						}
						r.write(c.n, at...)
					}
				}
				round(int64(size))
				before := r.wrote()
				bytes := int64(float64(size) * *amplifyRounds)
				round(bytes)
				w := r.wrote()
				per := func(name string, n int64) { b.ReportMetric(float64(n)/float64(bytes), name+"/B") }
				per("log", w.log-before.log)
				per("blocks", w.blocks-before.blocks)
				per("flush", w.flushed-before.flushed)
				per("compact", w.compacted-before.compacted)
				per("process", w.process-before.process)
			}
		})
	}
}
