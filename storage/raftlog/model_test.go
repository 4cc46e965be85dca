package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

var testID = [16]byte{1, 2, 3}

func testOptions() Options {
	return Options{Identity: testID, SegmentSize: MinSegmentSize, CacheBytes: 4 << 10, Spares: 2}
}

func mustOpen(t testing.TB, fs vfs.FS, opts Options) *Log {
	t.Helper()
	l, err := Open(fs, "log", opts)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l
}

func mustAppend(t testing.TB, l *Log, updates ...Update) {
	t.Helper()
	if err := l.Append(updates); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func entry(index, term uint64, data string) *raftpb.Entry {
	e := &raftpb.Entry{Index: &index, Term: &term, Type: raftpb.EntryNormal.Enum()}
	if data != "" {
		e.Data = []byte(data)
	}
	return e
}

// run returns entries [from, to] of one term.
func run(from, to, term uint64, size int) []*raftpb.Entry {
	var es []*raftpb.Entry
	for i := from; i <= to; i++ {
		es = append(es, entry(i, term, string(bytes.Repeat([]byte{byte(i + term)}, size))))
	}
	return es
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// modelGroup is what a copyset should hold.
type modelGroup struct {
	hs               hardState
	trunc, truncTerm uint64
	entries          []*raftpb.Entry
}

func (g *modelGroup) last() uint64 { return g.trunc + uint64(len(g.entries)) }

// model is what a log should hold. Its values are never changed once made.
type model map[layout.CopysetID]*modelGroup

// with returns the model after an Append, and whether that must have synced.
func (m model) with(updates []Update) (next model, synced bool) {
	next = model{}
	for id, g := range m {
		next[id] = g
	}
	for _, u := range updates {
		synced = synced || u.MustSync
		if u.Remove {
			if next[u.Copyset] != nil {
				synced = true
			}
			delete(next, u.Copyset)
			continue
		}
		g := &modelGroup{}
		if old := next[u.Copyset]; old != nil {
			*g = *old
		} else {
			synced = true
		}
		next[u.Copyset] = g
		if u.Reset != nil {
			g.trunc, g.truncTerm, g.entries = u.Reset.Index, u.Reset.Term, nil
			synced = true
		}
		if len(u.Entries) > 0 {
			keep := u.Entries[0].GetIndex() - g.trunc - 1
			g.entries = append(slices.Clone(g.entries[:keep]), u.Entries...)
			synced = true
		}
		if hs := u.HardState; hs != nil {
			n := hardState{hs.GetTerm(), hs.GetVote(), hs.GetCommit()}
			synced = synced || n.term != g.hs.term || n.vote != g.hs.vote
			g.hs = n
		}
		if u.TruncateTo > g.trunc {
			n := u.TruncateTo - g.trunc
			g.truncTerm = g.entries[n-1].GetTerm()
			g.entries = g.entries[n:]
			g.trunc = u.TruncateTo
		}
	}
	return next, synced
}

// diff compares a log with the model.
func (m model) diff(l *Log) error {
	var ids []layout.CopysetID
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if got := l.Copysets(); !slices.Equal(got, ids) {
		return fmt.Errorf("copysets %v, want %v", got, ids)
	}
	for _, id := range ids {
		g, _ := l.Group(id)
		if err := m[id].diff(g); err != nil {
			return fmt.Errorf("copyset %d: %w", id, err)
		}
	}
	return nil
}

func (g *modelGroup) diff(got *Group) error {
	first, _ := got.FirstIndex()
	last, _ := got.LastIndex()
	if first != g.trunc+1 || last != g.last() {
		return fmt.Errorf("entries [%d, %d], want [%d, %d]", first, last, g.trunc+1, g.last())
	}
	hs := got.HardState()
	if n := (hardState{hs.GetTerm(), hs.GetVote(), hs.GetCommit()}); n != g.hs {
		return fmt.Errorf("hard state %v, want %v", n, g.hs)
	}
	if term, err := got.Term(g.trunc); err != nil || term != g.truncTerm {
		return fmt.Errorf("term at the truncation point is %d (%v), want %d", term, err, g.truncTerm)
	}
	if len(g.entries) == 0 {
		return nil
	}
	es, err := got.Entries(first, last+1, 1<<40)
	if err != nil || len(es) != len(g.entries) {
		return fmt.Errorf("%d entries (%v), want %d", len(es), err, len(g.entries))
	}
	for i, e := range es {
		want := g.entries[i]
		term, err := got.Term(want.GetIndex())
		if err != nil || term != want.GetTerm() {
			return fmt.Errorf("term of %d is %d (%v), want %d", want.GetIndex(), term, err, want.GetTerm())
		}
		if e.GetIndex() != want.GetIndex() || e.GetTerm() != want.GetTerm() || e.GetType() != want.GetType() ||
			!bytes.Equal(e.GetData(), want.GetData()) {
			return fmt.Errorf("entry %d/%d of %d bytes, want %d/%d of %d bytes", e.GetTerm(), e.GetIndex(), len(e.GetData()),
				want.GetTerm(), want.GetIndex(), len(want.GetData()))
		}
	}
	return nil
}

// randomUpdates returns a batch of valid updates of a few copysets.
func randomUpdates(rng *rand.Rand, m model, copysets int) []Update {
	var us []Update
	for range 1 + rng.IntN(3) {
		id := layout.CopysetID(1 + rng.IntN(copysets))
		cur, _ := m.with(us)
		g := cur[id]
		if g == nil {
			g = &modelGroup{}
		}
		removed := slices.ContainsFunc(us, func(u Update) bool { return u.Copyset == id && u.Remove })
		if removed {
			continue
		}
		us = append(us, randomUpdate(rng, id, g, m[id]))
	}
	return us
}

// randomUpdate returns an update of a group that is g now and was before in the last Append.
func randomUpdate(rng *rand.Rand, id layout.CopysetID, g, before *modelGroup) Update {
	u := Update{Copyset: id, MustSync: rng.IntN(8) == 0}
	term := g.hs.term + 1
	switch k := rng.IntN(20); {
	case k < 10: // append, sometimes over a suffix
		from := g.last() + 1
		if len(g.entries) > 0 && rng.IntN(4) == 0 {
			from -= uint64(rng.IntN(len(g.entries) + 1))
		}
		u.Entries = run(from, from+uint64(rng.IntN(4)), term, rng.IntN(700))
		u.HardState = hard(term, uint64(rng.IntN(3)), g.hs.commit)
	case k < 12:
		u.HardState = hard(g.hs.term, g.hs.vote, g.hs.commit+1)
	case k < 13:
		u.HardState = hard(term, uint64(rng.IntN(3)), g.hs.commit)
	case k < 18: // truncate what an earlier Append wrote
		if before != nil && g.trunc == before.trunc && len(before.entries) > 0 && len(g.entries) >= len(before.entries) {
			n := 1 + rng.IntN(len(before.entries))
			if g.entries[n-1] == before.entries[n-1] {
				u.TruncateTo = g.trunc + uint64(n)
			}
		}
	case k < 19:
		u.Reset = &SnapshotMeta{Index: g.last() + uint64(rng.IntN(5)), Term: term}
		if rng.IntN(2) == 0 {
			u.Entries = run(u.Reset.Index+1, u.Reset.Index+2, term, rng.IntN(100))
		}
		u.HardState = hard(term, 0, u.Reset.Index)
	default:
		if rng.IntN(3) == 0 {
			u.Remove = true
		}
	}
	return u
}

func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewMem()
		l := mustOpen(t, fs, testOptions())
		m := model{}
		for i := range 150 {
			us := randomUpdates(rng, m, 4)
			mustAppend(t, l, us...)
			m, _ = m.with(us)
			if rng.IntN(5) == 0 {
				if _, err := l.Compact(); err != nil {
					t.Fatalf("seed %d: compact: %v", seed, err)
				}
			}
			if rng.IntN(20) == 0 {
				mustClose(t, l)
				l = mustOpen(t, fs, testOptions())
			}
			if err := m.diff(l); err != nil {
				t.Fatalf("seed %d, append %d: %v", seed, i, err)
			}
			checkCounters(t, l)
		}
		mustClose(t, l)
	}
}

// checkCounters compares the live counts and the cache's with what the groups hold.
func checkCounters(t *testing.T, l *Log) {
	t.Helper()
	live, cached, bytes := map[*segment]int64{}, 0, int64(0)
	for _, g := range l.groups() {
		live[g.mu.home]++
		for i := range g.mu.slots {
			s := &g.mu.slots[i]
			live[s.seg]++
			if s.entry != nil {
				cached++
				bytes += entryCharge(s.length())
			}
		}
	}
	for _, s := range l.segments() {
		if s.records.Load() != live[s] {
			t.Fatalf("segment %d counts %d live records, has %d", s.number, s.records.Load(), live[s])
		}
		delete(live, s)
	}
	if len(live) > 0 {
		t.Fatalf("live records in segments that are gone")
	}
	u := l.Usage()
	if u.CachedEntries != cached || u.CachedBytes != bytes || bytes > l.cache.limit {
		t.Fatalf("cache counts %d entries, %d bytes, has %d, %d", u.CachedEntries, u.CachedBytes, cached, bytes)
	}
}

// TestAgainstMemoryStorage checks that the errors at the borders are those of raft's own Storage.
func TestAgainstMemoryStorage(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), testOptions())
	defer l.Close()
	ref := raft.NewMemoryStorage()
	es := run(1, 9, 2, 10)
	mustAppend(t, l, Update{Copyset: 1, Entries: es})
	mustAppend(t, l, Update{Copyset: 1, TruncateTo: 4})
	if err := errors.Join(ref.Append(es), ref.Compact(4)); err != nil {
		t.Fatal(err)
	}
	g, _ := l.Group(1)
	for i := uint64(0); i < 12; i++ {
		want, wantErr := ref.Term(i)
		got, err := g.Term(i)
		if got != want || !errors.Is(err, wantErr) {
			t.Errorf("Term(%d) = %d, %v; want %d, %v", i, got, err, want, wantErr)
		}
	}
	for lo := uint64(3); lo < 9; lo++ {
		for _, size := range []uint64{0, 1, 16, 17, 40, 50, 1000} {
			want, wantErr := ref.Entries(lo, 10, size)
			got, err := g.Entries(lo, 10, size)
			if len(got) != len(want) || !errors.Is(err, wantErr) {
				t.Errorf("Entries(%d, 10, %d) = %d, %v; want %d, %v", lo, size, len(got), err, len(want), wantErr)
			}
		}
	}
	if _, err := g.Entries(5, 11, 100); !errors.Is(err, raft.ErrUnavailable) {
		t.Errorf("Entries beyond the end: %v", err)
	}
}
