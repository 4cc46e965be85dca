package schedule

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// TestSchedule runs testdata/*: topology and reports as text, decisions as text.
//
//	server ID zone=Z [pool=P] [down=D] [draining] [disk-error] [sync=D] [usual=D] [stalled=D] [capacity=N] [used=N]      (one per line)
//	copyset ID peers=1@1,2@2,3@3 [unfounded] [unseen=1,2] [conf=N] [op=KIND:OLD@CS>NEW@CS] [removed=1@1] [abort]
//	report COPYSET on=CS peer=P [leader] [term=N] [commit=N] [conf=N] [members=1@1:100,…,4@4:7L] [error] [failing=D] [sending=P]
//	missing COPYSET on=CS for=D
//	advance | orders | plan [recover-after=D] [operations=N] [per-server=N] [balance] | leaders | look [times=N] | evacuate | arrange per-server=N [replicas=N]
func TestSchedule(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newWorld()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return w.run(t, d) })
	})
}

type world struct {
	c    *Cluster
	slow map[layout.ChunkserverID]*Slowness
}

func newWorld() *world {
	return &world{&Cluster{Servers: map[layout.ChunkserverID]*Server{}}, map[layout.ChunkserverID]*Slowness{}}
}

func (w *world) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "reset":
		*w = *newWorld()
		return "ok\n"
	case "state":
		for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
			w.line(t, strings.Fields(line))
		}
		return "ok\n"
	case "advance":
		return w.advance()
	case "orders":
		return w.orders()
	case "plan":
		return w.plan(t, d)
	case "leaders":
		m, ok := Leaders(w.c, func(layout.CopysetID) bool { return false })
		if !ok {
			return "none\n"
		}
		return fmt.Sprintf("copyset %d to peer %d\n", m.Copyset, m.To)
	case "look":
		return w.look(t, d)
	case "evacuate":
		return w.evacuate()
	case "arrange":
		return w.arrange(t, d)
	}
	t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

// args splits "k=v" fields; a field without "=" is "true".
func args(f []string) map[string]string {
	m := map[string]string{}
	for _, s := range f {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			v = "true"
		}
		m[k] = v
	}
	return m
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && s != "" {
		panic(err)
	}
	return n
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil && s != "" {
		panic(err)
	}
	return d
}

// at parses "7@3".
func at(s string) (layout.PeerID, layout.ChunkserverID) {
	p, c, _ := strings.Cut(s, "@")
	return layout.PeerID(number(p)), layout.ChunkserverID(number(c))
}

func items(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func (w *world) line(t *testing.T, f []string) {
	id, a := number(f[1]), args(f[2:])
	switch f[0] {
	case "server":
		s := &Server{
			ID: layout.ChunkserverID(id), Zone: a["zone"], Pool: cmp.Or(a["pool"], "p"), Down: duration(a["down"]), Draining: a["draining"] != "",
			Capacity: cmp.Or(number(a["capacity"]), 1000), Used: number(a["used"]),
		}
		s.Up, s.Slow = s.Down == 0, w.slow[s.ID] != nil && w.slow[s.ID].Slow()
		if s.Disk.Usual = duration(a["usual"]); a["sync"] != "" {
			s.Disk.Syncs, s.Disk.SyncP50 = 20, duration(a["sync"])
		}
		s.Disk.Stalled = duration(a["stalled"])
		if a["disk-error"] != "" {
			s.DiskError = "bad"
		}
		w.c.Servers[s.ID] = s
	case "copyset":
		r := &Record{ID: layout.CopysetID(id), Pool: cmp.Or(a["pool"], "p"), Founded: a["unfounded"] == "", ConfVersion: number(a["conf"])}
		for _, p := range items(a["peers"]) {
			pid, cs := at(p)
			r.Peers = append(r.Peers, Peer{ID: pid, Chunkserver: cs, Seen: !slices.Contains(items(a["unseen"]), strconv.Itoa(int(pid)))})
		}
		for _, p := range items(a["removed"]) {
			pid, cs := at(p)
			r.Removed = append(r.Removed, Peer{ID: pid, Chunkserver: cs})
		}
		if op := a["op"]; op != "" {
			kind, rest, _ := strings.Cut(op, ":")
			from, to, _ := strings.Cut(rest, ">")
			r.Op = &Operation{Kind: kind, Abort: a["abort"] != ""}
			r.Op.OldPeer, r.Op.OldChunkserver = at(from)
			r.Op.NewPeer, r.Op.NewChunkserver = at(to)
		}
		w.c.Copysets = append(w.c.Copysets, &State{
			Record: r, Reports: map[layout.ChunkserverID]*Report{},
			Missing: map[layout.ChunkserverID]time.Duration{}, Failing: map[layout.ChunkserverID]time.Duration{},
		})
	case "report":
		w.report(w.state(id), a)
	case "missing":
		s, cs := w.state(id), layout.ChunkserverID(number(a["on"]))
		s.Missing[cs] = duration(a["for"])
		delete(s.Reports, cs)
	default:
		t.Fatalf("unknown line %v", f)
	}
}

func (w *world) state(id uint64) *State {
	for _, s := range w.c.Copysets {
		if uint64(s.Record.ID) == id {
			return s
		}
	}
	panic(fmt.Sprintf("no copyset %d", id))
}

func (w *world) report(s *State, a map[string]string) {
	r := &Report{
		Peer: layout.PeerID(number(a["peer"])), Leader: a["leader"] != "", Term: number(a["term"]), Commit: number(a["commit"]),
		ConfVersion: number(a["conf"]), SnapshotPeer: layout.PeerID(number(a["sending"])),
	}
	if a["error"] != "" {
		r.Error = "bad"
	}
	for _, m := range items(a["members"]) {
		who, match, _ := strings.Cut(m, ":")
		var mm Member
		mm.ID, mm.Chunkserver = at(who)
		if strings.HasSuffix(match, "L") {
			mm.Role, match = Learner, strings.TrimSuffix(match, "L")
		}
		mm.Match = number(match)
		r.Members = append(r.Members, mm)
	}
	cs := layout.ChunkserverID(number(a["on"]))
	s.Reports[cs] = r
	if f := a["failing"]; f != "" {
		s.Failing[cs] = duration(f)
	}
	switch {
	case r.Leader:
		s.Leader, s.LeaderOn = r, cs
	case s.LeaderOn == cs:
		s.Leader, s.LeaderOn = nil, 0
	}
}

// advance advances every copyset until nothing changes, and shows what did.
func (w *world) advance() string {
	var b strings.Builder
	for _, s := range w.c.Copysets {
		changed := false
		for range 10 {
			r, ok := Advance(s)
			if !ok {
				break
			}
			s.Record, changed = r, true
		}
		if changed {
			b.WriteString(show(s.Record))
		}
	}
	return cmp.Or(b.String(), "nothing\n")
}

func show(r *Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "copyset %d conf=%d founded=%v peers=", r.ID, r.ConfVersion, r.Founded)
	for i, p := range r.Peers {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%d@%d", p.ID, p.Chunkserver)
		if p.Role == Learner {
			b.WriteByte('L')
		}
		if !p.Seen {
			b.WriteByte('?')
		}
	}
	for _, p := range r.Removed {
		fmt.Fprintf(&b, " removed=%d@%d", p.ID, p.Chunkserver)
	}
	if o := r.Op; o != nil {
		fmt.Fprintf(&b, " op=%s:%d@%d>%d@%d seen=%v", o.Kind, o.OldPeer, o.OldChunkserver, o.NewPeer, o.NewChunkserver, o.NewSeen)
		if o.Abort {
			fmt.Fprintf(&b, " abort=%q", o.Error)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// orders shows what every chunkserver is told, and the step of each operation.
func (w *world) orders() string {
	var b strings.Builder
	for _, s := range w.c.Copysets {
		if step, _, _ := Step(s); step != "" {
			fmt.Fprintf(&b, "copyset %d: %s\n", s.Record.ID, step)
		}
	}
	for _, srv := range sorted(w.c) {
		for _, s := range w.c.Copysets {
			for _, o := range Orders(nil, s, srv.ID, 0) {
				fmt.Fprintf(&b, "%d: copyset %d %s\n", srv.ID, o.Copyset, text(o))
			}
		}
	}
	return cmp.Or(b.String(), "none\n")
}

func text(o Order) string {
	switch o.Action {
	case Found:
		return fmt.Sprintf("found peer %d of %d", o.Peer, len(o.Peers))
	case Join:
		return fmt.Sprintf("join peer %d", o.Peer)
	case Remove:
		return fmt.Sprintf("remove replica of peer %d", o.Peer)
	case Transfer:
		return fmt.Sprintf("transfer to peer %d", o.Peer)
	}
	var parts []string
	for _, c := range o.Changes {
		parts = append(parts, fmt.Sprintf("%s %d@%d", [...]string{"", "learner", "promote", "remove"}[c.Action], c.Peer, c.Chunkserver))
	}
	return fmt.Sprintf("change conf %d: %s", o.Replaces, strings.Join(parts, ", "))
}

func (w *world) plan(t *testing.T, d *datadriven.TestData) string {
	l := Limits{Operations: 10, PerServer: 10}
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "recover-after":
			l.RecoverAfter = duration(a.Vals[0])
		case "operations":
			l.Operations = int(number(a.Vals[0]))
		case "per-server":
			l.PerServer = int(number(a.Vals[0]))
		case "balance":
			l.Balance = true
		default:
			t.Fatalf("unknown argument %s", a.Key)
		}
	}
	var b strings.Builder
	for _, x := range Plan(w.c, l) {
		if x.Abort {
			fmt.Fprintf(&b, "copyset %d: give up: %s\n", x.Copyset, x.Why)
			continue
		}
		fmt.Fprintf(&b, "copyset %d: %s peer %d to %d\n", x.Copyset, x.Kind, x.OldPeer, x.NewChunkserver)
	}
	return cmp.Or(b.String(), "nothing\n")
}

// look looks at the disks, and shows which are slow, and why.
func (w *world) look(t *testing.T, d *datadriven.TestData) string {
	times := 1
	d.MaybeScanArgs(t, "times", &times)
	for range times {
		for id, normal := range Normal(w.c) {
			if w.slow[id] == nil {
				w.slow[id] = &Slowness{}
			}
			w.slow[id].Look(w.c.Servers[id].Disk, normal)
			w.c.Servers[id].Slow = w.slow[id].Slow()
		}
	}
	var b strings.Builder
	for _, srv := range sorted(w.c) {
		if s := w.slow[srv.ID]; s != nil && s.Slow() {
			fmt.Fprintf(&b, "%d: %s\n", srv.ID, s.Why)
		}
	}
	return cmp.Or(b.String(), "none is slow\n")
}

func (w *world) evacuate() string {
	var b strings.Builder
	to := Evacuate(w.c)
	for _, s := range w.c.Copysets {
		if p := to[s.Record.ID]; p != 0 {
			fmt.Fprintf(&b, "copyset %d to peer %d\n", s.Record.ID, p)
		}
	}
	return cmp.Or(b.String(), "none\n")
}

// arrange shows how many copysets each chunkserver gets, and how many partners it has.
func (w *world) arrange(t *testing.T, d *datadriven.TestData) string {
	var per, replicas int
	d.ScanArgs(t, "per-server", &per)
	replicas = 3
	d.MaybeScanArgs(t, "replicas", &replicas)
	sets := Arrange(w.c, "p", Arrangement{Replicas: replicas, PerServer: per}, rand.New(rand.NewPCG(1, 2)))
	n, partners := map[layout.ChunkserverID]int{}, map[layout.ChunkserverID]map[layout.ChunkserverID]bool{}
	for _, set := range sets {
		zones := map[string]bool{}
		for _, id := range set {
			n[id]++
			zones[w.c.Servers[id].Zone] = true
			for _, q := range set {
				if partners[id] == nil {
					partners[id] = map[layout.ChunkserverID]bool{}
				}
				partners[id][q] = true
			}
		}
		if len(zones) != replicas || len(set) != replicas {
			t.Errorf("copyset %v is in zones %v", set, zones)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d copysets\n", len(sets))
	for _, s := range sorted(w.c) {
		fmt.Fprintf(&b, "%d: %d, %d partners\n", s.ID, n[s.ID], max(len(partners[s.ID])-1, 0))
	}
	return b.String()
}

// TestArrangeLarge checks balance, spread and time on a cluster of some size.
func TestArrangeLarge(t *testing.T) {
	c := &Cluster{Servers: map[layout.ChunkserverID]*Server{}}
	const n = 60
	for i := layout.ChunkserverID(1); i <= n; i++ {
		c.Servers[i] = &Server{ID: i, Pool: "p", Zone: strconv.Itoa(int(i) % 5), Up: true, Capacity: 1 << 40}
	}
	sets := Arrange(c, "p", Arrangement{Replicas: 3, PerServer: 100}, rand.New(rand.NewPCG(3, 4)))
	have, partners := map[layout.ChunkserverID]int{}, map[layout.ChunkserverID]map[layout.ChunkserverID]bool{}
	for _, set := range sets {
		for _, a := range set {
			have[a]++
			for _, b := range set {
				if partners[a] == nil {
					partners[a] = map[layout.ChunkserverID]bool{}
				}
				partners[a][b] = true
			}
		}
	}
	for i := layout.ChunkserverID(1); i <= n; i++ {
		if have[i] < 100 || have[i] > 103 || len(partners[i])-1 < 46 {
			t.Errorf("chunkserver %d has %d copysets and %d partners", i, have[i], len(partners[i])-1)
		}
	}
}
