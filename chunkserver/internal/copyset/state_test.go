package copyset

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

func founding() *Members {
	return &Members{
		Version: 1, Conf: &raftpb.ConfState{Voters: []uint64{1, 2, 3}, AutoLeave: new(false)},
		Chunkservers: map[layout.PeerID]layout.ChunkserverID{1: 11, 2: 12, 3: 13},
	}
}

// machine is a state with its medium, driven by text.
type machine struct {
	s *State
	m *mem
}

func (x *machine) apply(c *Command) (Outcome, error) {
	index, _ := x.s.Applied()
	res, err := x.s.Apply(index+1, 2, c.AppendTo(nil), x.m)
	return res.Outcome, err
}

var opNames = map[string]Op{
	"write": OpWrite, "discard": OpDiscard, "zero": OpWriteZeroes, "cas": OpCompareAndWrite, "raise": OpRaise,
	"raise-access": OpRaiseAccess, "delete": OpDeleteVolume,
}

// line runs "OP [at=SECTOR] [data=TEXT] [was=TEXT] [ini=N] [epoch=N] [gen=N] [access=N] [seq=N] [low=N]". A text fills
// one sector.
func (x *machine) line(t *testing.T, line string) string {
	fields := strings.Fields(line)
	c := &Command{
		Op: opNames[fields[0]], Chunk: layout.ChunkID{Volume: 1}, Length: SectorSize, Initiator: 1,
		Fence: layout.Fence{Epoch: 1}, Access: 1,
	}
	var data, was string
	for _, f := range fields[1:] {
		key, value, _ := strings.Cut(f, "=")
		var n uint64
		_, _ = fmt.Sscan(value, &n) // stays 0 for text
		switch key {
		case "at":
			c.Offset = uint32(n) * SectorSize
		case "len":
			c.Length = uint32(n) * SectorSize
		case "data":
			data = value
		case "was":
			was = value
		case "ini":
			c.Initiator = layout.InitiatorID(n)
		case "epoch":
			c.Fence.Epoch = layout.Epoch(n)
		case "gen":
			c.Fence.Generation = layout.Generation(n)
		case "access":
			c.Access = layout.AccessGeneration(n)
		case "seq":
			c.Seq = layout.Seq(n)
		case "low":
			c.LowWater = layout.Seq(n)
		default:
			t.Fatalf("what is %q", f)
		}
	}
	switch c.Op {
	case OpWrite:
		c.Payload = sector(data)
	case OpCompareAndWrite:
		c.Payload = append(sector(was), sector(data)...)
	}
	if c.Op == OpDeleteVolume || c.Op == OpRaiseAccess || c.Op == OpRaise {
		c.Length = 0
	}
	out, err := x.apply(c)
	if err != nil {
		return "error: " + err.Error()
	}
	s := out.Code.String()
	switch out.Code {
	case StaleFence:
		s += " " + out.Fence.String()
	case StaleAccess:
		s += fmt.Sprintf(" %d", out.Access)
	case Miscompare:
		s += fmt.Sprintf(" at %d", out.Offset)
	}
	return s
}

func sector(text string) []byte {
	b := make([]byte, SectorSize)
	copy(b, text)
	return b
}

// TestScenarios runs the files of testdata: "run" with one command per line, "read" of sectors, "restart" through the
// state's encoding, "fail" and "heal" of the medium.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		x := &machine{New(founding(), 1, 1), newMem()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "run":
				var out strings.Builder
				for _, l := range strings.Split(strings.TrimSpace(d.Input), "\n") {
					fmt.Fprintf(&out, "%s\n", x.line(t, l))
				}
				return out.String()
			case "read":
				var at int
				d.ScanArgs(t, "at", &at)
				b := x.m.chunk(layout.ChunkID{Volume: 1})[at*SectorSize : (at+1)*SectorSize]
				return fmt.Sprintf("%q\n", strings.TrimRight(string(b), "\x00"))
			case "restart":
				blob := x.s.Marshal()
				s, err := Unmarshal(blob)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(s.Marshal(), blob) {
					t.Fatal("the state changed on its way")
				}
				x.s = s
				return ""
			case "fail", "heal":
				x.m.fail = d.Cmd == "fail"
				return ""
			}
			t.Fatalf("what is %q", d.Cmd)
			return ""
		})
	})
}

// seedBase is added to the seeds of the random tests: 0, or what the environment has as SIM_SEED (make sim).
func seedBase(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("SIM_SEED")
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SIM_SEED: %v", err)
	}
	t.Logf("SIM_SEED=%d", n)
	return n
}

// TestReplicas applies one random sequence of commands on two replicas, one of which restarts from its encoding at any
// time: the outcomes, states and media must be the same.
func TestReplicas(t *testing.T) {
	first := seedBase(t)
	for seed := first; seed < first+20; seed++ {
		rng := rand.New(rand.NewPCG(seed, 1))
		a, b := &machine{New(founding(), 1, 1), newMem()}, &machine{New(founding(), 1, 1), newMem()}
		for i := range 300 {
			c := randomCommand(rng)
			x, err1 := a.apply(c)
			y, err2 := b.apply(c)
			if x != y || err1 != nil || err2 != nil {
				t.Fatalf("seed %d, command %d: %v %v, %v %v", seed, i, x, err1, y, err2)
			}
			if rng.IntN(20) == 0 {
				s, err := Unmarshal(b.s.Marshal())
				if err != nil {
					t.Fatal(err)
				}
				b.s = s
			}
			checkView(t, a.s)
		}
		if !bytes.Equal(a.s.Marshal(), b.s.Marshal()) || !a.m.equal(b.m) {
			t.Fatalf("seed %d: the replicas differ", seed)
		}
	}
}

// TestSwapsHaveOneOrder: which compare and write makes place for another is the same on a replica that was restarted,
// whatever the order in which they took effect.
func TestSwapsHaveOneOrder(t *testing.T) {
	swapAt := func(seq int) *Command {
		return &Command{
			Op: OpCompareAndWrite, Chunk: layout.ChunkID{Volume: 1}, Offset: uint32(seq) * SectorSize, Length: SectorSize, Initiator: 1,
			Fence: layout.Fence{Epoch: 1}, Access: 1, Seq: layout.Seq(seq), Payload: append(sector(""), sector("locked")...),
		}
	}
	a, b := &machine{New(founding(), 1, 1), newMem()}, &machine{New(founding(), 1, 1), newMem()}
	for i := range swapsMax + 3 {
		for _, x := range []*machine{a, b} {
			if out, err := x.apply(swapAt(50 - i)); out.Code != OK || err != nil {
				t.Fatal(out, err)
			}
		}
		s, err := Unmarshal(b.s.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		b.s = s
	}
	if !bytes.Equal(a.s.Marshal(), b.s.Marshal()) {
		t.Fatal("the replicas differ")
	}
}

// TestDigestChangesNothing: the op moves the applied index only, and its result says what it is.
func TestDigestChangesNothing(t *testing.T) {
	x := &machine{New(founding(), 1, 1), newMem()}
	c := sample()
	if _, err := x.apply(&c); err != nil {
		t.Fatal(err)
	}
	index, _ := x.s.Applied()
	writes := x.m.writes
	d := Command{Op: OpDigest, Proposer: 3, Proposal: 9}
	res, err := x.s.Apply(index+1, 2, d.AppendTo(nil), x.m)
	if err != nil || !res.Digest || res.Outcome.Code != OK || res.Proposer != 3 || res.Proposal != 9 {
		t.Fatalf("%+v %v", res, err)
	}
	if at, _ := x.s.Applied(); at != index+1 || x.m.writes != writes || len(x.s.volumes) != 1 {
		t.Errorf("applied %d, %d writes, %d volumes", at, x.m.writes, len(x.s.volumes))
	}
}

// TestDigestBesideEarlierReleases: those know the ops up to OpDeleteVolume, stop at others, and refuse a raise of no volume on every
// replica. Entries with the digest's own number are read too.
func TestDigestBesideEarlierReleases(t *testing.T) {
	b := (&Command{Op: OpDigest, Proposer: 3, Proposal: 9}).AppendTo(nil)
	if op := Op(b[1]); op != OpRaise || (&Command{Op: op, Initiator: 1, Fence: layout.Fence{Epoch: 1}}).Validate() == nil {
		t.Errorf("op %d", op)
	}
	for _, op := range []Op{OpRaise, OpDigest} {
		b[1] = byte(op)
		x := &machine{New(founding(), 1, 1), newMem()}
		if res, err := x.s.Apply(2, 2, b, x.m); err != nil || !res.Digest || res.Outcome.Code != OK || res.Proposal != 9 {
			t.Errorf("op %d: %+v, %v", op, res, err)
		}
	}
}

func randomCommand(rng *rand.Rand) *Command {
	ops := []Op{OpWrite, OpWrite, OpWrite, OpDiscard, OpWriteZeroes, OpCompareAndWrite, OpCompareAndWrite, OpRaise, OpRaiseAccess, OpDeleteVolume}
	c := &Command{
		Op: ops[rng.IntN(len(ops))], Chunk: layout.ChunkID{Volume: layout.VolumeID(1 + rng.IntN(3))},
		Initiator: layout.InitiatorID(1 + rng.IntN(3)), Access: layout.AccessGeneration(rng.IntN(3)),
		Fence: layout.Fence{Epoch: layout.Epoch(1 + rng.IntN(3)), Generation: layout.Generation(rng.IntN(2))},
		Seq:   layout.Seq(1 + rng.IntN(40)), LowWater: layout.Seq(rng.IntN(10)),
		Offset: uint32(rng.IntN(64)) * SectorSize, Length: uint32(1+rng.IntN(16)) * SectorSize,
	}
	switch c.Op {
	case OpDeleteVolume:
		if rng.IntN(10) > 0 {
			c.Op = OpRaise
		}
		c.Offset, c.Length = 0, 0
	case OpRaise, OpRaiseAccess:
		c.Offset, c.Length = 0, 0
	case OpWrite:
		c.Payload = bytes.Repeat([]byte{byte(rng.IntN(4))}, int(c.Length))
	case OpCompareAndWrite:
		c.Length = SectorSize
		c.Payload = bytes.Repeat([]byte{byte(rng.IntN(2))}, 2*SectorSize)
	}
	return c
}

// checkView compares what readers see with the state.
func checkView(t *testing.T, s *State) {
	t.Helper()
	v := s.View()
	for id, vol := range s.volumes {
		if vol.deleted {
			if verdict, _ := v.Check(id, 1, layout.Fence{Epoch: 9}, 9); verdict != RefuseAccess {
				t.Fatalf("a deleted volume reads: %v", verdict)
			}
			continue
		}
		for ini, i := range vol.initiators {
			if verdict, _ := v.Check(id, ini, i.fence, vol.access); verdict != Pass {
				t.Fatalf("volume %d initiator %d: %v", id, ini, verdict)
			}
			if verdict, _ := v.Check(id, ini, layout.Fence{Epoch: i.fence.Epoch, Generation: i.fence.Generation + 1}, vol.access); verdict != Behind {
				t.Fatalf("a newer fence: %v", verdict)
			}
			if verdict, _ := v.Check(id, ini, layout.Fence{Epoch: i.fence.Epoch - 1, Generation: 99}, vol.access); verdict != RefuseFence {
				t.Fatalf("an older fence: %v", verdict)
			}
		}
	}
}

func TestStateCut(t *testing.T) {
	x := &machine{New(founding(), 1, 1), newMem()}
	rng := rand.New(rand.NewPCG(3, 3))
	for range 100 {
		if _, err := x.apply(randomCommand(rng)); err != nil {
			t.Fatal(err)
		}
	}
	b := x.s.Marshal()
	for n := range b {
		if _, err := Unmarshal(b[:n]); err == nil {
			t.Fatalf("a state cut at %d was taken", n)
		}
	}
	b[0] = 9
	if _, err := Unmarshal(b); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer state: %v", err)
	}
}

func FuzzState(f *testing.F) {
	x := &machine{New(founding(), 1, 1), newMem()}
	rng := rand.New(rand.NewPCG(4, 4))
	for range 50 {
		_, _ = x.apply(randomCommand(rng)) // any state will do
	}
	f.Add(x.s.Marshal())
	f.Add(New(nil, 0, 0).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 { // let the fuzzer get past the checksum
			n := len(b) - 4
			b = append(b[:n:n], byte(layout.CRC(b[:n])), byte(layout.CRC(b[:n])>>8), byte(layout.CRC(b[:n])>>16), byte(layout.CRC(b[:n])>>24))
		}
		s, err := Unmarshal(b)
		if err != nil {
			return
		}
		s.View()
		if _, err := Unmarshal(s.Marshal()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWindow(t *testing.T) {
	var w window
	model := map[layout.Seq]Outcome{}
	rng := rand.New(rand.NewPCG(5, 5))
	low := layout.Seq(0)
	for range 20000 {
		switch rng.IntN(3) {
		case 0, 1:
			seq := low + layout.Seq(rng.IntN(Window+100))
			if w.inside(seq) != (seq-low < Window) {
				t.Fatalf("%d inside from %d: %v", seq, low, w.inside(seq))
			}
			if w.inside(seq) {
				o := Outcome{Code: OK}
				if rng.IntN(3) == 0 {
					o = Outcome{Code: Miscompare, Offset: uint32(seq)}
				}
				if _, ok := model[seq]; !ok {
					w.store(seq, o)
					model[seq] = o
				}
			}
		case 2:
			if rng.IntN(200) == 0 {
				low += layout.Seq(rng.IntN(2 * Window))
			} else {
				low += layout.Seq(rng.IntN(200))
			}
			w.raise(low)
			for seq := range model {
				if seq < low {
					delete(model, seq)
				}
			}
		}
		seq := low + layout.Seq(rng.IntN(Window))
		got, ok := w.lookup(seq)
		if want, have := model[seq]; got != want || ok != have {
			t.Fatalf("seq %d: %v %v, want %v %v", seq, got, ok, want, have)
		}
	}
}

func TestMembers(t *testing.T) {
	s := New(founding(), 1, 1)
	index := uint64(1)
	change := func(c *Change) bool {
		t.Helper()
		index++
		ok, err := s.ApplyChange(index, 1, c.Raft())
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for name, c := range map[string]*Change{
		"old version":         {Replaces: 0, Changes: []MemberChange{{4, 14, AddLearner}}},
		"nothing":             {Replaces: 1},
		"twice the same":      {Replaces: 1, Changes: []MemberChange{{4, 14, AddLearner}, {4, 14, AddLearner}}},
		"learner is a member": {Replaces: 1, Changes: []MemberChange{{3, 13, AddLearner}}},
		"promote a stranger":  {Replaces: 1, Changes: []MemberChange{{4, 14, Promote}}},
		"remove a stranger":   {Replaces: 1, Changes: []MemberChange{{4, 14, Remove}}},
		"remove all":          {Replaces: 1, Changes: []MemberChange{{1, 0, Remove}, {2, 0, Remove}, {3, 0, Remove}}},
		"nowhere":             {Replaces: 1, Changes: []MemberChange{{4, 0, AddLearner}}},
	} {
		if change(c) {
			t.Errorf("%s: accepted", name)
		}
	}
	if !change(&Change{1, []MemberChange{{4, 14, AddLearner}}}) || s.Members().Voter(4) || !s.Members().Has(4) {
		t.Fatalf("learner: %v", s.Members())
	}
	if !change(&Change{2, []MemberChange{{4, 0, Promote}, {1, 0, Remove}}}) || !s.Members().Joint() || !s.Members().Has(1) {
		t.Fatalf("joint: %v", s.Members())
	}
	reached := map[layout.PeerID]uint64{1: 10, 2: 10, 3: 1, 4: 1}
	if q := s.Members().Quorum(func(p layout.PeerID) uint64 { return reached[p] }); q != 1 {
		t.Errorf("the old majority alone reached %d", q)
	}
	if change(&Change{3, []MemberChange{{5, 15, AddLearner}}}) {
		t.Error("a change during a joint configuration was accepted")
	}
	index++
	if ok, err := s.ApplyChange(index, 1, &raftpb.ConfChangeV2{}); !ok || err != nil || s.Members().Joint() || s.Members().Has(1) {
		t.Fatalf("leaving: %v %v %v", ok, err, s.Members())
	}
	if m := s.Members(); m.Version != 4 || len(m.Chunkservers) != 3 || m.Chunkservers[4] != 14 {
		t.Errorf("in the end: %+v", m)
	}
	reached = map[layout.PeerID]uint64{2: 5, 3: 7, 4: 9}
	if q := s.Members().Quorum(func(p layout.PeerID) uint64 { return reached[p] }); q != 7 {
		t.Errorf("a majority reached %d, want 7", q)
	}
}

// TestMediumFailure: an entry that the medium refused did not happen, and happens once when it is applied again.
func TestMediumFailure(t *testing.T) {
	x := &machine{New(founding(), 1, 1), newMem()}
	c := sample()
	x.m.fail = true
	for range 2 {
		if _, err := x.apply(&c); !errors.Is(err, errMedium) {
			t.Fatal(err)
		}
		if i, _ := x.s.Applied(); i != 1 {
			t.Fatalf("the applied index moved to %d", i)
		}
	}
	x.m.fail = false
	for range 2 {
		if out, err := x.apply(&c); err != nil || out.Code != OK {
			t.Fatal(out, err)
		}
	}
	if x.m.writes != 1 {
		t.Errorf("%d writes", x.m.writes)
	}
}
