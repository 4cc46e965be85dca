package blockstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	modelChunk    = 3*256<<10 + 64<<10 // three leaves and a part
	modelBlocks   = modelChunk / layout.BlockSize
	modelVolumes  = 2
	modelChunks   = 2
	modelCopysets = 3
)

// modelChunkData is a chunk of the model; it is never changed, so that copies of a model share it.
type modelChunkData struct {
	data  []byte
	alloc [modelBlocks]bool
}

// model is what a copyset must hold.
type model struct {
	index, term uint64
	state       []byte
	chunks      map[layout.ChunkID]*modelChunkData
}

func (m *model) clone() *model {
	c := *m
	c.chunks = maps.Clone(m.chunks)
	return &c
}

// change replaces a chunk by a copy that fn changes.
func (m *model) change(ch layout.ChunkID, fn func(c *modelChunkData)) {
	c := &modelChunkData{data: make([]byte, modelChunk)}
	if old := m.chunks[ch]; old != nil {
		copy(c.data, old.data)
		c.alloc = old.alloc
	}
	fn(c)
	m.chunks[ch] = c
}

func (m *model) write(ch layout.ChunkID, off int, p []byte) {
	m.change(ch, func(c *modelChunkData) {
		copy(c.data[off:], p)
		for b := off / layout.BlockSize; b*layout.BlockSize < off+len(p); b++ {
			c.alloc[b] = true
		}
	})
}

// unmap discards whole blocks, and zeroes the rest of the range too if zero is set.
func (m *model) unmap(ch layout.ChunkID, off, n int, zero bool) {
	m.change(ch, func(c *modelChunkData) {
		for b := (off + layout.BlockSize - 1) / layout.BlockSize; (b+1)*layout.BlockSize <= off+n; b++ {
			clear(c.data[b*layout.BlockSize : (b+1)*layout.BlockSize])
			c.alloc[b] = false
		}
		if zero {
			clear(c.data[off : off+n])
		}
	})
}

// check compares a copyset with the model.
func (m *model) check(c *Copyset) error {
	if i, t := c.Applied(); i != m.index || t != m.term {
		return fmt.Errorf("copyset %d: applied %d.%d, want %d.%d", c.ID(), i, t, m.index, m.term)
	}
	usage := make(map[layout.VolumeID]int64)
	for v := range layout.VolumeID(modelVolumes) {
		for i := range uint32(modelChunks) {
			ch := layout.ChunkID{Volume: v, Index: i}
			want := m.chunks[ch]
			if want == nil {
				want = &modelChunkData{data: make([]byte, modelChunk)}
			}
			got := make([]byte, modelChunk)
			if _, err := c.Read(ch, 0, got, nil); err != nil {
				return err
			}
			if !bytes.Equal(got, want.data) {
				return fmt.Errorf("copyset %d chunk %v: wrong bytes", c.ID(), ch)
			}
			runs, err := c.Allocated(ch, 0, modelChunk, nil)
			if err != nil {
				return err
			}
			b := 0
			for _, r := range runs {
				for range r.Length / layout.BlockSize {
					if want.alloc[b] != r.Allocated {
						return fmt.Errorf("copyset %d chunk %v block %d: allocated %v", c.ID(), ch, b, r.Allocated)
					}
					if r.Allocated {
						usage[v] += layout.BlockSize
					}
					b++
				}
			}
			if b != modelBlocks {
				return fmt.Errorf("copyset %d chunk %v: %d blocks in the map", c.ID(), ch, b)
			}
		}
	}
	if got := c.Usage(); !maps.Equal(got, usage) {
		return fmt.Errorf("copyset %d: usage %v, want %v", c.ID(), got, usage)
	}
	return nil
}

// heldImage is an image with what it must hold.
type heldImage struct {
	im   *Image
	want *model
}

// frozenModel is a Frozen with what it makes durable.
type frozenModel struct {
	f    *Frozen
	want *model
}

// loggedData is what an entry of the raft log holds in the data file. It is never changed.
type loggedData struct {
	runs []Blocks
	data []byte
}

// harness runs random operations on a store and on the model.
type harness struct {
	t    *testing.T
	rng  *rand.Rand
	d    *testDisk
	s    *Store
	now  map[layout.CopysetID]*model
	held []heldImage
	// frozen are those that are not committed.
	frozen    []frozenModel
	nextIndex uint64

	// mu guards what follows: Pebble's goroutines do file operations too. It is held while a crash is noted, so that
	// both file systems crash at one moment.
	mu sync.Mutex
	// durable is what is durable for certain, next what will be when the operation in progress ends; nil outside.
	durable, next map[layout.CopysetID]*model
	// logged are the entries of the raft log, whose records are durable; crashLogged those that the crash leaves.
	logged, crashLogged []loggedData
	// armed is the number of file operations until the crash; crashed is the disk that it leaves, and crashWant what
	// may be found there.
	armed     int
	crashed   *testDisk
	crashWant []map[layout.CopysetID]*model
	crashRNG  *rand.Rand
}

func newHarness(t *testing.T, seed uint64) *harness {
	h := &harness{
		t: t, rng: rand.New(rand.NewPCG(seed, 99)), crashRNG: rand.New(rand.NewPCG(seed, 98)), d: newDisk(t),
		now: map[layout.CopysetID]*model{}, durable: map[layout.CopysetID]*model{},
	}
	// Small writes are deferred in most runs, some of them until there is no more room.
	h.d.opts.DeferBelow = []int{0, 0, 6 << 10, -1}[seed%4]
	h.d.opts.DeferredBytes = []int64{0, 64 << 10, 1 << 20}[seed%3]
	h.open()
	return h
}

// strike is called before every file operation. When the time has come it notes what a crash would leave.
func (h *harness) strike() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.armed == 0 || h.crashed != nil {
		return
	}
	if h.armed--; h.armed > 0 {
		return
	}
	c := &testDisk{opts: h.d.opts}
	c.index = h.d.index.CrashClone(pebblevfs.CrashCloneCfg{
		UnsyncedDataPercent: []int{0, 50, 100}[h.crashRNG.IntN(3)], RNG: h.crashRNG,
	})
	c.fs = h.d.fs.Crash(h.crashRNG)
	h.crashed, h.crashLogged = c, slices.Clone(h.logged)
	h.crashWant = append(h.crashWant[:0], h.durable)
	if h.next != nil {
		h.crashWant = append(h.crashWant, h.next)
	}
}

func (h *harness) open() {
	opts := h.d.opts
	opts.IndexFS = errorfs.Wrap(h.d.index, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			h.strike()
		}
		return nil
	}))
	fs := vfs.NewFault(h.d.fs, func(op vfs.Op) vfs.Fault {
		if op.Kind != vfs.OpReadAt {
			h.strike()
		}
		return vfs.Fault{}
	})
	s, err := Open(fs, testDir, testID, opts)
	if err != nil {
		h.t.Fatalf("open: %v", err)
	}
	h.s = s
}

func (h *harness) fail(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) copyset(id layout.CopysetID) *Copyset {
	c, err := h.s.Copyset(id)
	h.fail(err)
	return c
}

// transition runs an operation that makes next durable, or leaves it as it was.
func (h *harness) transition(next map[layout.CopysetID]*model, fn func() error) {
	h.mu.Lock()
	h.next = next
	h.mu.Unlock()
	h.fail(fn())
	h.mu.Lock()
	h.next, h.durable = nil, next
	h.mu.Unlock()
}

func (h *harness) randChunk() layout.ChunkID {
	return layout.ChunkID{Volume: layout.VolumeID(h.rng.IntN(modelVolumes)), Index: uint32(h.rng.IntN(modelChunks))}
}

// randRange returns a range of sectors, often small, sometimes of whole blocks.
func (h *harness) randRange() (off, n int) {
	n = 512 * (1 + h.rng.IntN(20))
	if h.rng.IntN(6) == 0 {
		n = 512 * (1 + h.rng.IntN(modelChunk/512))
	}
	off = 512 * h.rng.IntN((modelChunk-n)/512+1)
	if h.rng.IntN(2) == 0 {
		off, n = off&^4095, (n+4095)&^4095
		n = min(n, modelChunk-off)
	}
	return off, n
}

func (h *harness) randData(n int) []byte {
	p := make([]byte, n)
	x := h.rng.Uint64()
	for i := 0; i < n; i += 8 {
		x = x*6364136223846793005 + 1442695040888963407
		for j := range 8 {
			p[i+j] = byte(x >> (8 * j))
		}
	}
	return p
}

// step does one random operation.
func (h *harness) step() {
	id := layout.CopysetID(1 + h.rng.IntN(modelCopysets))
	m := h.now[id]
	if m == nil {
		m = &model{chunks: map[layout.ChunkID]*modelChunkData{}}
		next := maps.Clone(h.durable)
		next[id] = m.clone()
		h.transition(next, func() error { _, err := h.s.Create(id); return err })
		h.now[id] = m
		return
	}
	switch k := h.rng.IntN(100); {
	case k < 60:
		h.mutate(id, m)
	case k < 75:
		h.read(id, m)
	case k < 82:
		h.freeze(id, m)
	case k < 90:
		h.commit()
	case k < 94:
		h.snapshot(id, m)
	case k < 98:
		h.endImage()
	case k < 99:
		h.fail(m.check(h.copyset(id)))
	case h.rng.IntN(4) == 0:
		h.remove(id)
	}
}

func (h *harness) mutate(id layout.CopysetID, m *model) {
	c, ch := h.copyset(id), h.randChunk()
	off, n := h.randRange()
	switch k := h.rng.IntN(44); {
	case k >= 40:
		h.sideload(c, ch, m)
	case k < 28:
		p := h.randData(n)
		var crcs []uint32
		if sp, err := extent.NewSpan(uint32(off), n); err == nil && h.rng.IntN(2) == 0 {
			from, _ := sp.WholeBlocks()
			crcs = append([]uint32{}, blockCRCs(p[min(sp.At(from), len(p)):])...)
		}
		h.fail(c.Write(ch, uint32(off), p, crcs))
		m.write(ch, off, p)
	case k < 34:
		h.fail(c.Discard(ch, uint32(off), uint32(n)))
		m.unmap(ch, off, n, false)
	case k < 39:
		h.fail(c.WriteZeroes(ch, uint32(off), uint32(n)))
		m.unmap(ch, off, n, true)
	default:
		h.fail(c.DeleteVolume(ch.Volume))
		maps.DeleteFunc(m.chunks, func(x layout.ChunkID, _ *modelChunkData) bool { return x.Volume == ch.Volume })
	}
	h.nextIndex++
	m.index, m.term = h.nextIndex, 1+h.nextIndex/7
	c.SetApplied(m.index, m.term)
}

// sideload stores the data of an entry, has the log hold it, and applies it, or not. It drops another entry now and then.
func (h *harness) sideload(c *Copyset, ch layout.ChunkID, m *model) {
	n := 1 + h.rng.IntN(40)
	x := loggedData{data: h.randData(n * layout.BlockSize)}
	var err error
	x.runs, err = h.s.StoreBlocks(x.data)
	h.fail(err)
	h.fail(h.s.SyncBlocks())
	h.mu.Lock()
	h.logged = append(h.logged, x)
	h.mu.Unlock()
	if h.rng.IntN(5) > 0 {
		off := h.rng.IntN(modelBlocks-n+1) * layout.BlockSize
		var crcs []uint32
		if h.rng.IntN(2) == 0 {
			crcs = blockCRCs(x.data)
		}
		h.fail(c.Adopt(ch, uint32(off), x.data, crcs, x.runs))
		m.write(ch, off, x.data)
	}
	for len(h.logged) > 8 || len(h.logged) > 0 && h.rng.IntN(3) == 0 {
		k := h.rng.IntN(len(h.logged))
		x := h.logged[k]
		h.mu.Lock()
		h.logged = slices.Delete(slices.Clone(h.logged), k, k+1)
		h.mu.Unlock()
		h.fail(h.checkLogged(x))
		h.s.ReleaseBlocks(x.runs)
	}
}

// checkLogged reads the data of an entry of the log back.
func (h *harness) checkLogged(x loggedData) error {
	got := make([]byte, len(x.data))
	if err := h.s.LoadBlocks(x.runs, got); err != nil {
		return err
	}
	if !bytes.Equal(got, x.data) {
		return errors.New("an entry's blocks were used for something else")
	}
	return nil
}

func (h *harness) read(id layout.CopysetID, m *model) {
	ch := h.randChunk()
	off, n := h.randRange()
	want := make([]byte, n)
	if c := m.chunks[ch]; c != nil {
		copy(want, c.data[off:])
	}
	mustRead(h.t, h.copyset(id), ch, uint32(off), want)
}

func (h *harness) freeze(id layout.CopysetID, m *model) {
	m.state = fmt.Appendf(nil, "state %d", m.index)
	h.frozen = append(h.frozen, frozenModel{h.copyset(id).Freeze(m.state), m.clone()})
}

func (h *harness) commit() {
	n := h.rng.IntN(len(h.frozen) + 1)
	next := maps.Clone(h.durable)
	var fs []*Frozen
	for _, f := range h.frozen[:n] {
		fs = append(fs, f.f)
		next[f.f.Copyset().ID()] = f.want
	}
	h.transition(next, func() error { return h.s.Commit(fs) })
	h.frozen = h.frozen[n:]
}

func (h *harness) snapshot(id layout.CopysetID, m *model) {
	if len(h.held) >= 3 {
		return
	}
	m.state = fmt.Appendf(nil, "image %d", m.index)
	im, err := h.copyset(id).Snapshot(m.state)
	h.fail(err)
	h.held = append(h.held, heldImage{im, m.clone()})
}

// endImage compares an image, or installs it, and closes it.
func (h *harness) endImage() {
	if len(h.held) == 0 {
		return
	}
	k := h.rng.IntN(len(h.held))
	x := h.held[k]
	h.held = slices.Delete(h.held, k, k+1)
	defer x.im.Close()
	id := x.im.Copyset()
	if h.rng.IntN(2) == 0 || h.now[id] == nil {
		h.compare(x)
		return
	}
	in, err := h.s.NewInstaller(id)
	h.fail(err)
	defer in.Abort()
	if h.rng.IntN(4) == 0 { // one that does not end
		_, err := io.CopyN(in, imageReader(x.im), 1000+int64(h.rng.IntN(1<<20)))
		if err != nil && !errors.Is(err, io.EOF) {
			h.fail(err)
		}
		return
	}
	_, err = x.im.WriteTo(chopper{in, h.rng})
	h.fail(err)
	next := maps.Clone(h.durable)
	next[id] = x.want.clone()
	h.transition(next, func() error { _, err := in.Finish(); return err })
	h.now[id] = x.want.clone()
	h.frozen = slices.DeleteFunc(h.frozen, func(f frozenModel) bool {
		if f.f.Copyset().ID() != id {
			return false
		}
		h.fail(h.s.Commit([]*Frozen{f.f})) // obsolete: it must change nothing
		return true
	})
}

// compare reads an image and compares it with the model.
func (h *harness) compare(x heldImage) {
	got := &model{chunks: map[layout.ChunkID]*modelChunkData{}}
	for {
		r, err := x.im.NextRun()
		if errors.Is(err, io.EOF) {
			break
		}
		h.fail(err)
		got.write(r.Chunk, int(r.First)*layout.BlockSize, r.Data)
		if !slices.Equal(blockCRCs(r.Data), r.CRCs) {
			h.t.Fatal("an image has wrong checksums")
		}
	}
	for ch, want := range x.want.chunks {
		have := got.chunks[ch]
		if have == nil {
			have = &modelChunkData{data: make([]byte, modelChunk)}
		}
		if !bytes.Equal(have.data, want.data) || have.alloc != want.alloc {
			h.t.Fatalf("an image has wrong bytes in chunk %v", ch)
		}
	}
	if i, t := x.im.Applied(); i != x.want.index || t != x.want.term || string(x.im.State()) != string(x.want.state) {
		h.t.Fatal("an image has the wrong header")
	}
}

func (h *harness) remove(id layout.CopysetID) {
	next := maps.Clone(h.durable)
	delete(next, id)
	h.transition(next, func() error { return h.s.Remove(id) })
	delete(h.now, id)
	h.frozen = slices.DeleteFunc(h.frozen, func(f frozenModel) bool { return f.f.Copyset().ID() == id })
}

func (h *harness) arm(n int) {
	h.mu.Lock()
	h.armed = n
	h.mu.Unlock()
}

func (h *harness) hasCrashed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.crashed != nil
}

// reopen closes the store and opens it again, on the disk that a crash left if there was one.
func (h *harness) reopen() {
	for _, x := range h.held {
		x.im.Close()
	}
	h.held, h.frozen = nil, nil
	h.fail(h.s.Close())
	h.mu.Lock()
	want := []map[layout.CopysetID]*model{h.durable}
	if h.crashed != nil {
		h.d, want, h.logged = h.crashed, h.crashWant, h.crashLogged
	}
	h.armed, h.crashed, h.crashWant = 0, nil, nil
	h.mu.Unlock()
	h.open()
	for _, x := range h.logged {
		h.fail(h.s.HoldBlocks(x.runs))
	}
	for _, x := range h.logged {
		h.fail(h.checkLogged(x))
	}
	var errs []error
	for _, w := range want {
		err := h.checkAll(w)
		if err == nil {
			h.durable = w
			h.now = make(map[layout.CopysetID]*model)
			for id, m := range w {
				h.now[id] = m.clone()
			}
			return
		}
		errs = append(errs, err)
	}
	h.t.Fatalf("after reopen: %v", errors.Join(errs...))
}

// checkAll compares the store with the model of all copysets, and the space that it uses.
func (h *harness) checkAll(want map[layout.CopysetID]*model) error {
	ids := slices.Sorted(maps.Keys(want))
	if got := h.s.Copysets(); !slices.Equal(got, ids) {
		return fmt.Errorf("copysets %v, want %v", got, ids)
	}
	used := int64(layout.BlockSize)
	for id, m := range want {
		c := h.copyset(id)
		if !bytes.Equal(c.State(), m.state) {
			return fmt.Errorf("copyset %d: state %q, want %q", id, c.State(), m.state)
		}
		if err := m.check(c); err != nil {
			return err
		}
		for _, n := range c.Usage() {
			used += n
		}
	}
	logged := int64(0)
	for _, x := range h.logged {
		logged += int64(len(x.data))
	}
	if u := h.s.Usage(); u.Used != used || u.PendingFree > logged {
		return fmt.Errorf("usage %+v, want %d used", u, used)
	}
	return nil
}

// chopper hands a stream on in pieces of random length.
type chopper struct {
	w   io.Writer
	rng *rand.Rand
}

func (c chopper) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), 1+c.rng.IntN(1<<(1+c.rng.IntN(19))))
		if _, err := c.w.Write(p[:n]); err != nil {
			return 0, err
		}
		p = p[n:]
	}
	return total, nil
}

// imageReader reads an image's stream.
func imageReader(im *Image) io.Reader {
	var rest, frame []byte
	return readerFunc(func(p []byte) (int, error) {
		if len(rest) == 0 {
			var err error
			if frame, err = im.Next(frame); err != nil {
				return 0, err
			}
			rest = frame
		}
		n := copy(p, rest)
		rest = rest[n:]
		return n, nil
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed)
			for i := range 400 {
				h.step()
				if i%150 == 149 {
					h.reopen()
				}
			}
			h.reopen()
			h.fail(h.s.Close())
		})
	}
}

func TestCrash(t *testing.T) {
	for seed := range uint64(14) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, 1000+seed)
			for range 6 {
				h.arm(1 + h.rng.IntN(300))
				for i := 0; i < 300 && !h.hasCrashed(); i++ {
					h.step()
				}
				h.reopen()
			}
			h.fail(h.s.Close())
		})
	}
}
