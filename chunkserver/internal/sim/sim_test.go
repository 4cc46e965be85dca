package sim

import (
	"errors"
	"os"
	"runtime/debug"
	"strconv"
	"testing"
	"testing/cryptotest"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/loop"
)

// The environment says what is run: SIM_SEED is the first seed (then SIM_SEEDS of them run, 500 unless it is said), SIM_LOG
// tells what happens.
const (
	// seedsShort is how many seeds a test runs that nobody told a seed, seedsLong one that was told.
	seedsShort = 20
	seedsLong  = 500
	// heapMax is at how much memory garbage is collected, in bytes, and not before: a simulation makes much of it and holds
	// little. It is not a share of what is in use, because the pools of stores that have ended keep these alive through two
	// collections: the share of much is more each time.
	heapMax = 512 << 20
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapMax)
	os.Exit(m.Run())
}

func number(t testing.TB, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func run(t *testing.T, o Options) Result {
	t.Helper()
	cryptotest.SetGlobalRandom(t, o.Seed) // raft draws its election timeouts from it
	if os.Getenv("SIM_LOG") != "" {
		o.Log = t.Logf
	}
	r := Run(o)
	if errors.As(r.Err, new(*loop.StuckError)) {
		t.Fatal(r.Err) // it has the process's random numbers
	}
	return r
}

// TestSim simulates clusters under faults of all kinds.
func TestSim(t *testing.T) {
	first, n := number(t, "SIM_SEED", 1), number(t, "SIM_SEEDS", seedsLong)
	switch {
	case raced:
		n = 1
	case os.Getenv("SIM_SEED") == "":
		n = seedsShort
	}
	var sum Stats
	begin := time.Now()
	for seed := first; seed < first+n; seed++ {
		r := run(t, Options{Seed: seed})
		sum.Add(&r.Stats)
		if r.Err != nil {
			t.Errorf("seed %d: %v (SIM_SEED=%d SIM_SEEDS=1 SIM_LOG=1 go test -run 'TestSim$' -v ./chunkserver/internal/sim)", seed, r.Err, seed)
		}
	}
	t.Logf("%d seeds from %d, %.0f per minute: %v", n, first, float64(n)/time.Since(begin).Minutes(), &sum)
}

// TestSimFound: seeds that found a bug. 1240: a leader that had lost the answer to an image sent it again for ever.
func TestSimFound(t *testing.T) {
	for _, seed := range []uint64{1240} {
		if r := run(t, Options{Seed: seed}); r.Err != nil {
			t.Errorf("seed %d: %v", seed, r.Err)
		}
	}
}

// TestSimRepeats: a seed does the same each time, and leaves nothing behind.
func TestSimRepeats(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	last := uint64(8)
	if raced {
		last = 1
	}
	for seed := uint64(1); seed <= last; seed++ {
		a, b := run(t, Options{Seed: seed}), run(t, Options{Seed: seed})
		if a.Trace != b.Trace || a.Stats != b.Stats {
			t.Errorf("seed %d: %x and %x\n%v\n%v", seed, a.Trace, b.Trace, &a.Stats, &b.Stats)
		}
	}
}

// TestSimEveryCrash has a chunkserver crash at each change of its disk, before it is made and after, from its first start
// through the founding of a copyset, writes and checkpoints. What of the unsynced data survives is drawn.
func TestSimEveryCrash(t *testing.T) {
	const atMost, few = 2000, 60
	step := 1
	if raced {
		step = few / 2
	}
	crashed := 0
	for at := 1; ; at += step {
		if at > atMost {
			t.Fatalf("the run has no end after %d changes", at)
		}
		missed := 0
		for _, late := range []bool{false, true} {
			r := run(t, Options{Seed: number(t, "SIM_SEED", 1), CrashAt: at, CrashLate: late})
			if r.Err != nil {
				t.Errorf("crash at change %d, late %v: %v", at, late, r.Err)
			}
			if r.Stats.Crashes == 0 {
				missed++
			}
		}
		if missed == 2 {
			break
		}
		crashed++
	}
	if crashed*step < few {
		t.Errorf("only %d changes to crash at", crashed*step)
	}
	t.Logf("a crash at each of %d changes", crashed)
}

// seeds are those that found a bug first. Any change of the code gives a seed another run, so the search goes on from there.
var seeds = [bugs]uint64{
	LogNotSynced: 3, BlocksNotSynced: 3, NamesNotSynced: 3, AckBeforeQuorum: 1, AckBeforeSync: 1, AckBeforeCommit: 1,
	VoteForgotten: 8, EpochUnchecked: 1, RetryTwice: 5, WriteSplit: 1, CompareApart: 3, FollowerReads: 1, LeaseUnchecked: 1,
	WritesLost: 1, ListNotSynced: 4, BlocksReusedEarly: 1, WrongByte: 1, ReplicaChanged: 1, LeaseTooLong: 63, ClockDrifts: 33,
	NoQuarantine: 5031, TicksMadeUp: 7, LeaseInTransfer: 8,
}

// TestSimBugs: the simulation finds what is wrong.
func TestSimBugs(t *testing.T) {
	const tries = 200
	for bug := NoBug + 1; bug < bugs; bug++ {
		if raced && bug > LogNotSynced {
			break
		}
		var found error
		seed := seeds[bug]
		for ; found == nil && seed < seeds[bug]+tries; seed++ {
			found = run(t, Options{Seed: seed, Bug: bug}).Err
		}
		if found == nil {
			t.Errorf("%v is not found by %d seeds from %d on", bug, tries, seeds[bug])
			continue
		}
		t.Logf("%v: seed %d: %v", bug, seed-1, found)
	}
}
