package vfs

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 9)) }

// outcomes crashes fs with many seeds and counts what describe says of the results.
func outcomes(fs *Mem, describe func(*Mem) string) map[string]int {
	seen := map[string]int{}
	for seed := range uint64(400) {
		seen[describe(fs.Crash(seeded(seed)))]++
	}
	return seen
}

// expect checks that exactly the listed outcomes were met.
func expect(t *testing.T, got map[string]int, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if got[w] == 0 {
			t.Errorf("never saw %q", w)
		}
		delete(got, w)
	}
	for g, n := range got {
		t.Errorf("saw %q %d times", g, n)
	}
}

// settled returns a file system with files that are durable.
func settled(t *testing.T, files ...string) *Mem {
	t.Helper()
	fs := NewMem()
	for _, name := range files {
		f := create(t, fs, name, "old")
		must(t, f.Sync())
		must(t, f.Close())
	}
	must(t, SyncDir(fs, "/"))
	return fs
}

func TestCrashNames(t *testing.T) {
	names := func(fs *Mem) string {
		list, _ := fs.List("/")
		return strings.Join(list, " ")
	}
	t.Run("create", func(t *testing.T) {
		fs := settled(t, "a")
		f := create(t, fs, "b", "new")
		must(t, f.Sync()) // does not sync the name
		expect(t, outcomes(fs, names), "a", "a b")
		must(t, SyncDir(fs, "/"))
		expect(t, outcomes(fs, names), "a b")
		if got := content(t, fs.Crash(nil), "b"); got != "new" {
			t.Errorf("content %q", got)
		}
	})
	t.Run("remove", func(t *testing.T) {
		fs := settled(t, "a", "b")
		must(t, fs.Remove("a"))
		must(t, fs.Remove("b"))
		expect(t, outcomes(fs, names), "a b", "a", "b", "")
	})
	t.Run("replace", func(t *testing.T) {
		fs := settled(t, "a")
		f := create(t, fs, "tmp", "new")
		must(t, f.Sync())
		must(t, fs.Rename("tmp", "a"))
		expect(t, outcomes(fs, func(c *Mem) string { return names(c) + "=" + content(t, c, "a") }), "a=old", "a tmp=old", "a=new")
		if got := content(t, fs.Crash(nil), "a"); got != "old" {
			t.Errorf("content %q", got)
		}
	})
	t.Run("rename twice", func(t *testing.T) {
		fs := settled(t, "a")
		must(t, fs.Rename("a", "b"))
		must(t, fs.Rename("b", "c"))
		expect(t, outcomes(fs, names), "a", "b", "c")
	})
	t.Run("between directories", func(t *testing.T) {
		fs := NewMem()
		must(t, fs.MkdirAll("d"))
		must(t, fs.MkdirAll("e"))
		f := create(t, fs, "d/x", "x")
		must(t, f.Sync())
		must(t, SyncDir(fs, "d"))
		must(t, SyncDir(fs, "/"))
		must(t, fs.Rename("d/x", "e/x"))
		where := func(c *Mem) string { return content(t, c, "d/x") + content(t, c, "e/x") }
		expect(t, outcomes(fs, where), "x-", "-x")
		must(t, SyncDir(fs, "e"))
		expect(t, outcomes(fs, where), "-x")
	})
	t.Run("directory", func(t *testing.T) {
		fs := NewMem()
		must(t, fs.MkdirAll("d"))
		f := create(t, fs, "d/x", "x")
		must(t, f.Sync())
		must(t, SyncDir(fs, "d"))
		expect(t, outcomes(fs, func(c *Mem) string { return names(c) + content(t, c, "d/x") }), "-", "dx")
	})
}

func TestCrashData(t *testing.T) {
	const a, b, c = "a", "b", "c"
	fill := func(s string, sectors int) string { return strings.Repeat(s, sectors*SectorSize) }
	// shape shows one letter per sector and fails on a torn one.
	shape := func(t *testing.T) func(*Mem) string {
		return func(fs *Mem) string {
			s, out := content(t, fs, "f"), ""
			for len(s) >= SectorSize {
				if strings.Trim(s[:SectorSize], s[:1]) != "" {
					t.Fatalf("torn sector %q", s[:SectorSize])
				}
				out, s = out+strings.ReplaceAll(s[:1], "\x00", "0"), s[SectorSize:]
			}
			return out + s
		}
	}
	file := func(t *testing.T, s string) (*Mem, File) {
		fs := NewMem()
		f := create(t, fs, "f", s)
		must(t, f.Sync())
		must(t, SyncDir(fs, "/"))
		return fs, f
	}
	t.Run("torn", func(t *testing.T) {
		fs, f := file(t, fill(a, 2))
		write(t, f, 0, fill(b, 2))
		expect(t, outcomes(fs, shape(t)), "aa", "ab", "ba", "bb")
	})
	t.Run("two versions", func(t *testing.T) {
		fs, f := file(t, fill(a, 1))
		write(t, f, 0, fill(b, 1))
		write(t, f, 0, fill(c, 1))
		expect(t, outcomes(fs, shape(t)), "a", "b", "c")
	})
	t.Run("reordered", func(t *testing.T) {
		fs, f := file(t, fill(a, 2))
		write(t, f, 0, fill(b, 1))
		write(t, f, SectorSize, fill(c, 1))
		expect(t, outcomes(fs, shape(t)), "aa", "ba", "ac", "bc")
	})
	t.Run("synced", func(t *testing.T) {
		fs, f := file(t, fill(a, 2))
		write(t, f, 0, fill(b, 1))
		must(t, f.Sync())
		write(t, f, SectorSize, fill(c, 1))
		expect(t, outcomes(fs, shape(t)), "ba", "bc")
		if got := shape(t)(fs.Crash(nil)); got != "ba" {
			t.Errorf("%q with everything unsynced lost", got)
		}
	})
	t.Run("grown", func(t *testing.T) {
		fs, f := file(t, fill(a, 1))
		write(t, f, SectorSize, fill(b, 1))
		expect(t, outcomes(fs, shape(t)), "a", "a0", "ab")
	})
	t.Run("cut", func(t *testing.T) {
		fs, f := file(t, fill(a, 2))
		must(t, f.Truncate(SectorSize))
		expect(t, outcomes(fs, shape(t)), "aa", "a", "a0")
	})
	t.Run("hole", func(t *testing.T) {
		fs, f := file(t, fill(a, 8)+fill(b, 1))
		must(t, f.PunchHole(0, memPage))
		seen := outcomes(fs, shape(t))
		if seen["00000000b"] == 0 || seen["aaaaaaaab"] == 0 {
			t.Errorf("saw %v", seen)
		}
		must(t, f.Sync())
		expect(t, outcomes(fs, shape(t)), "00000000b")
	})
	t.Run("again", func(t *testing.T) {
		fs, f := file(t, fill(a, 1))
		write(t, f, 0, fill(b, 1))
		crashed := fs.Crash(seeded(1))
		before := shape(t)(crashed)
		g, err := crashed.Open("f", ReadWrite)
		must(t, err)
		write(t, g, 0, fill(c, 1))
		expect(t, outcomes(crashed, shape(t)), before, "c")
		if got := shape(t)(fs); got != "b" {
			t.Errorf("the old file system has %q", got)
		}
		write(t, f, 0, fill(a, 1))
		if got := shape(t)(crashed); got != "c" {
			t.Errorf("the new file system has %q", got)
		}
	})
}

// TestCrashRepeats checks that a seed gives the same state each time.
func TestCrashRepeats(t *testing.T) {
	build := func() *Mem {
		fs := NewMem()
		rng := seeded(5)
		for i := range 40 {
			name := fmt.Sprint("f", rng.IntN(6))
			f, err := fs.Open(name, CreateMissing)
			must(t, err)
			write(t, f, int64(rng.IntN(3000)), strings.Repeat(string(rune('a'+i%26)), 1+rng.IntN(9000)))
			if rng.IntN(4) == 0 {
				must(t, f.Sync())
			}
			if rng.IntN(4) == 0 {
				must(t, fs.Rename(name, fmt.Sprint("f", rng.IntN(6))))
			}
			if rng.IntN(6) == 0 {
				must(t, SyncDir(fs, "/"))
			}
		}
		return fs
	}
	dump := func(fs *Mem) string {
		var out strings.Builder
		names, _ := fs.List("/")
		for _, name := range names {
			fmt.Fprintf(&out, "%s=%s\n", name, content(t, fs, name))
		}
		return out.String()
	}
	one, two := build(), build()
	differ := false
	for seed := range uint64(60) {
		a, b := dump(one.Crash(seeded(seed))), dump(two.Crash(seeded(seed)))
		if a != b {
			t.Fatalf("seed %d gives two states", seed)
		}
		differ = differ || a != dump(one)
	}
	if !differ {
		t.Error("no crash lost anything")
	}
}

// TestWriteback checks that what a file keeps apart is bounded.
func TestWriteback(t *testing.T) {
	fs := settled(t, "f")
	f, err := fs.Open("f", ReadWrite)
	must(t, err)
	b := make([]byte, 1<<20)
	for i := range int64(memWriteback>>20 + 1) {
		if _, err := f.WriteAt(b, i<<20); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.(*memFile).node.changedBytes; n > memWriteback {
		t.Errorf("%d bytes are kept", n)
	}
}
