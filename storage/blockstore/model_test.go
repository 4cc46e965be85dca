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
	"sync/atomic"
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

// modelChunkData is a chunk of the model; it is never changed, so that copies of a model share it. wrote tells which write a
// block is of, 0: it is not allocated. So two chunks share a block when that is the same.
type modelChunkData struct {
	data  []byte
	wrote [modelBlocks]uint64
}

// modelWrites numbers the writes of blocks.
var modelWrites atomic.Uint64

// modelContent is what the chunks of a copyset hold.
type modelContent map[layout.ChunkID]*modelChunkData

// model is what a copyset must hold.
type model struct {
	index, term uint64
	state       []byte
	chunks      modelContent
	// versions are those of the volumes; last is the last number that was given to one.
	versions map[modelVersion]modelContent
	last     map[layout.VolumeID]uint64
}

type modelVersion struct {
	volume layout.VolumeID
	n      uint64
}

func newModel() *model {
	return &model{chunks: modelContent{}, versions: map[modelVersion]modelContent{}, last: map[layout.VolumeID]uint64{}}
}

func (m *model) clone() *model {
	c := *m
	c.chunks, c.versions, c.last = maps.Clone(m.chunks), maps.Clone(m.versions), maps.Clone(m.last)
	return &c
}

// change replaces a chunk by a copy that fn changes.
func (m *model) change(ch layout.ChunkID, fn func(c *modelChunkData)) {
	c := &modelChunkData{data: make([]byte, modelChunk)}
	if old := m.chunks[ch]; old != nil {
		copy(c.data, old.data)
		c.wrote = old.wrote
	}
	fn(c)
	m.chunks[ch] = c
}

func (m *model) write(ch layout.ChunkID, off int, p []byte) {
	m.change(ch, func(c *modelChunkData) {
		copy(c.data[off:], p)
		for b := off / layout.BlockSize; b*layout.BlockSize < off+len(p); b++ {
			c.wrote[b] = modelWrites.Add(1)
		}
	})
}

// unmap discards whole blocks, and zeroes the rest of the range too if zero is set.
func (m *model) unmap(ch layout.ChunkID, off, n int, zero bool) {
	m.change(ch, func(c *modelChunkData) {
		for b := (off + layout.BlockSize - 1) / layout.BlockSize; (b+1)*layout.BlockSize <= off+n; b++ {
			clear(c.data[b*layout.BlockSize : (b+1)*layout.BlockSize])
			c.wrote[b] = 0
		}
		if zero {
			clear(c.data[off : off+n])
			for _, b := range []int{off / layout.BlockSize, (off + n - 1) / layout.BlockSize} {
				if c.wrote[b] != 0 && (b*layout.BlockSize < off || (b+1)*layout.BlockSize > off+n) {
					c.wrote[b] = modelWrites.Add(1)
				}
			}
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
			n, err := m.chunks.check(c, layout.ChunkID{Volume: v, Index: i})
			if err != nil {
				return fmt.Errorf("copyset %d: %w", c.ID(), err)
			}
			if n > 0 {
				usage[v] += n
			}
		}
	}
	if got := c.Usage(); !maps.Equal(got, usage) {
		return fmt.Errorf("copyset %d: usage %v, want %v", c.ID(), got, usage)
	}
	return m.checkVersions(c)
}

// check compares a chunk of a copyset with the model, and returns its allocated bytes.
func (m modelContent) check(c *Copyset, ch layout.ChunkID) (allocated int64, err error) {
	want := m.of(ch)
	got := make([]byte, modelChunk)
	if _, err := c.Read(ch, 0, got, nil); err != nil {
		return 0, err
	}
	if !bytes.Equal(got, want.data) {
		return 0, fmt.Errorf("chunk %v: wrong bytes", ch)
	}
	runs, err := c.Allocated(ch, 0, modelChunk, nil)
	if err != nil {
		return 0, err
	}
	b := 0
	for _, r := range runs {
		for range r.Length / layout.BlockSize {
			if want.wrote[b] != 0 != r.Allocated {
				return 0, fmt.Errorf("chunk %v block %d: allocated %v", ch, b, r.Allocated)
			}
			if r.Allocated {
				allocated += layout.BlockSize
			}
			b++
		}
	}
	if b != modelBlocks {
		return 0, fmt.Errorf("chunk %v: %d blocks in the map", ch, b)
	}
	return allocated, nil
}

// of returns what a chunk must hold.
func (m modelContent) of(ch layout.ChunkID) *modelChunkData {
	if c := m[ch]; c != nil {
		return c
	}
	return &modelChunkData{data: make([]byte, modelChunk)}
}

// checkVersions compares the versions of a copyset with the model, and the space that only they take.
func (m *model) checkVersions(c *Copyset) error {
	for v := range layout.VolumeID(modelVolumes) {
		var want []uint64
		for x, content := range m.versions {
			if x.volume != v {
				continue
			}
			want = append(want, x.n)
			for i := range uint32(modelChunks) {
				ch := layout.ChunkID{Volume: v, Index: i}
				got := make([]byte, modelChunk)
				crcs, err := c.ReadVersion(x.n, ch, 0, got, nil)
				if err != nil {
					return err
				}
				if !bytes.Equal(got, content.of(ch).data) || !slices.Equal(crcs, blockCRCs(got)) {
					return fmt.Errorf("copyset %d chunk %v: wrong bytes in version %d", c.ID(), ch, x.n)
				}
			}
		}
		slices.Sort(want)
		if got := c.Versions(v); !slices.Equal(got, want) {
			return fmt.Errorf("copyset %d volume %d: versions %v, want %v", c.ID(), v, got, want)
		}
	}
	space := map[layout.VolumeID]VolumeSpace{}
	c.addSpace(space)
	got, want := map[layout.VolumeID]int64{}, m.versionUsage()
	for v, u := range space {
		if u.Versions != 0 {
			got[v] = u.Versions
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("copyset %d: only versions have %v, want %v", c.ID(), got, want)
	}
	return nil
}

// versionUsage returns the bytes of each volume that only versions have.
func (m *model) versionUsage() map[layout.VolumeID]int64 {
	type block struct {
		ch layout.ChunkID
		b  int
		n  uint64
	}
	seen := map[block]bool{}
	mark := func(content modelContent, kept map[layout.VolumeID]int64) {
		for ch, c := range content {
			for b, n := range c.wrote {
				if k := (block{ch, b, n}); n != 0 && !seen[k] {
					seen[k] = true
					kept[ch.Volume] += layout.BlockSize
				}
			}
		}
	}
	mark(m.chunks, map[layout.VolumeID]int64{})
	kept := map[layout.VolumeID]int64{}
	for x, content := range m.versions {
		of := modelContent{}
		for ch, c := range content {
			if ch.Volume == x.volume {
				of[ch] = c
			}
		}
		mark(of, kept)
	}
	return kept
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
	// gathered are those that were not exchanged.
	gathered []*Gathered
	// frozen are those that are not committed.
	frozen    []frozenModel
	nextIndex uint64
	// exchanged counts the blocks that were moved.
	exchanged int

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

// step does one random operation, and sees that the space balances after it.
func (h *harness) step() {
	h.operate()
	u := h.s.Space()
	sum := layout.BlockSize + u.Incoming + u.Logged + u.Reclaimable + u.Spare + u.Holes
	for _, v := range u.Volumes {
		sum += v.Content + v.Versions
	}
	logged := int64(0)
	for _, x := range h.logged {
		logged += int64(len(x.data))
	}
	if sum != u.File || u.Reclaimable < 0 || u.Logged > logged {
		h.t.Fatalf("the space does not balance: %+v is %d, the log has %d", u, sum, logged)
	}
}

func (h *harness) operate() {
	id := layout.CopysetID(1 + h.rng.IntN(modelCopysets))
	m := h.now[id]
	if m == nil {
		m = newModel()
		next := maps.Clone(h.durable)
		next[id] = m.clone()
		h.transition(next, func() error { _, err := h.s.Create(id); return err })
		h.now[id] = m
		return
	}
	switch k := h.rng.IntN(100); {
	case k < 60:
		h.mutate(id, m)
	case k < 71:
		h.read(id, m)
	case k < 75:
		h.gather(id)
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
	switch k := h.rng.IntN(50); {
	case k >= 44:
		h.version(c, ch.Volume, m)
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
		maps.DeleteFunc(m.versions, func(x modelVersion, _ modelContent) bool { return x.volume == ch.Volume })
		delete(m.last, ch.Volume)
	}
	h.nextIndex++
	m.index, m.term = h.nextIndex, 1+h.nextIndex/7
	c.SetApplied(m.index, m.term)
}

// version takes a version of the volume, or deletes one.
func (h *harness) version(c *Copyset, v layout.VolumeID, m *model) {
	if have := c.Versions(v); len(have) > 0 && h.rng.IntN(5) < len(have) {
		n := have[h.rng.IntN(len(have))]
		h.fail(c.DeleteVersion(v, n))
		delete(m.versions, modelVersion{v, n})
		if err := c.DeleteVersion(v, n); !errors.Is(err, ErrNoVersion) {
			h.t.Fatalf("a version was deleted twice: %v", err)
		}
		return
	}
	n := m.last[v] + 1 + h.rng.Uint64N(3)
	h.fail(c.TakeVersion(v, n))
	m.versions[modelVersion{v, n}], m.last[v] = maps.Clone(m.chunks), n
	if err := c.TakeVersion(v, n); !errors.Is(err, ErrRange) {
		h.t.Fatalf("a version was taken twice: %v", err)
	}
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

// gather copies what is scattered, or ends what was copied before.
func (h *harness) gather(id layout.CopysetID) {
	if len(h.gathered) < 3 && h.rng.IntN(2) == 0 {
		if h.rng.IntN(2) == 0 { // what is not durable is left alone
			h.freeze(id, h.now[id])
			h.commitAll()
		}
		// As Gather does, whether it is any use or not.
		g := &Gathered{c: h.copyset(id), chunk: h.randChunk()}
		_, _, err := g.look(0)
		h.fail(err)
		if len(g.from) > 0 {
			h.fail(g.copy())
		}
		if len(g.from) == 0 {
			g.unpin()
			return
		}
		h.gathered = append(h.gathered, g)
		return
	}
	if len(h.gathered) == 0 {
		return
	}
	k := h.rng.IntN(len(h.gathered))
	g := h.gathered[k]
	h.gathered = slices.Delete(h.gathered, k, k+1)
	if h.rng.IntN(5) > 0 {
		n, err := g.c.Exchange(g)
		h.fail(err)
		h.exchanged += n
	}
	g.Drop()
}

// commitAll commits all that was frozen.
func (h *harness) commitAll() { h.commitFirst(len(h.frozen)) }

func (h *harness) commit() { h.commitFirst(h.rng.IntN(len(h.frozen) + 1)) }

func (h *harness) commitFirst(n int) {
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
		want := int64(countBlocks(in.taken)) * layout.BlockSize
		for _, g := range h.gathered {
			want += g.Bytes()
		}
		if u := h.s.Space(); u.Incoming != want {
			h.t.Fatalf("an image brought %+v, %d are on their way, want %d", in.taken, u.Incoming, want)
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
	got := newModel()
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
		have := got.chunks.of(ch)
		for b := range want.wrote {
			if (have.wrote[b] != 0) != (want.wrote[b] != 0) {
				h.t.Fatalf("an image has chunk %v block %d, or not", ch, b)
			}
		}
		if !bytes.Equal(have.data, want.data) {
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
	h.held, h.frozen, h.gathered = nil, nil, nil
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
		for _, n := range m.versionUsage() {
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
	if u := h.s.Space(); u.Reclaimable != 0 || u.Incoming != 0 {
		return fmt.Errorf("after an open something waits: %+v", u)
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
	exchanged := 0
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
			exchanged += h.exchanged
		})
	}
	if exchanged < 100 {
		t.Errorf("only %d blocks were gathered", exchanged)
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
