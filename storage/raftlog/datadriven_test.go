package raftlog

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// script runs one file of testdata. Its commands:
//
//	open [identity=N] [cache=BYTES]  close  kill      kill leaves the log without closing it
//	crash [seed=N]                   everything unsynced is lost, or what the seed chooses
//	append                           lines: COPYSET [hs=TERM/VOTE/COMMIT] [entries=FROM-TO@TERMxSIZE] [reset=INDEX/TERM]
//	                                 [trunc=INDEX] [remove] [sync]
//	compact  usage  files  ops       ops: what was done to the disk since the last ops
//	state                            all copysets
//	entries copyset=N lo=N hi=N [max=N]
//	fault op=KIND err=NAME           the next operation of the kind fails
//	damage file=NAME off=N           inverts one bit
type script struct {
	t     *testing.T
	mem   *vfs.Mem
	l     *Log
	fault struct {
		op  string
		err error
	}
	ops []string
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{t: t, mem: vfs.NewMem()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			out, err := s.command(d)
			if err != nil {
				out += "error: " + err.Error() + "\n"
			}
			if out == "" {
				out = "ok\n"
			}
			return out
		})
	})
}

func (s *script) inject(op vfs.Op) vfs.Fault {
	switch op.Kind {
	case vfs.OpReadAt, vfs.OpSize, vfs.OpStat, vfs.OpList, vfs.OpLock, vfs.OpOpen, vfs.OpOpenDir, vfs.OpClose, vfs.OpMkdirAll:
	default:
		line := op.Kind.String() + " " + op.Base()
		if op.Kind == vfs.OpRename {
			line += " " + op.NewPath
		}
		s.ops = append(s.ops, line)
	}
	if op.Kind.String() == s.fault.op {
		err := s.fault.err
		s.fault.op = ""
		return vfs.Fault{Err: err}
	}
	return vfs.Fault{}
}

func (s *script) command(d *datadriven.TestData) (string, error) {
	switch d.Cmd {
	case "open":
		return "", s.open(d)
	case "close":
		return "", s.l.Close()
	case "kill":
		return "", s.l.lock.Close()
	case "crash":
		var rng *rand.Rand
		if d.HasArg("seed") {
			rng = rand.New(rand.NewPCG(number(s.t, d, "seed"), 4))
		}
		s.mem = s.mem.Crash(rng)
		return "", nil
	case "append":
		return "", s.l.Append(parseUpdates(s.t, d.Input))
	case "compact":
		c, err := s.l.Compact()
		return fmt.Sprintf("freed=%d moved=%d pinning=%v more=%v\n", c.Freed, c.Moved, c.Pinning, c.More), err
	case "usage":
		u := s.l.Usage()
		return fmt.Sprintf("segments=%d [%d, %d] spares=%d bytes=%d live=%d entries=%d pinning=%v failed=%v\n",
			u.Segments, u.Oldest, u.Newest, u.Spares, u.Bytes, u.LiveBytes, u.Entries, u.Pinning, u.Failed), nil
	case "files":
		names, err := s.mem.List("log")
		return strings.Join(names, "\n") + "\n", err
	case "ops":
		out := strings.Join(s.ops, "\n") + "\n"
		s.ops = nil
		return out, nil
	case "state":
		return s.state(), nil
	case "entries":
		return s.entries(d)
	case "fault":
		d.ScanArgs(s.t, "op", &s.fault.op)
		var name string
		d.ScanArgs(s.t, "err", &name)
		s.fault.err = map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC}[name]
		return "", nil
	case "damage":
		var name string
		d.ScanArgs(s.t, "file", &name)
		off := int64(number(s.t, d, "off"))
		patch(s.t, s.mem, name, off, []byte{readFile(s.t, s.mem, name)[off] ^ 4})
		return "", nil
	}
	return "", fmt.Errorf("unknown command %s", d.Cmd)
}

func number(t *testing.T, d *datadriven.TestData, key string) (n uint64) {
	d.ScanArgs(t, key, &n)
	return n
}

func (s *script) open(d *datadriven.TestData) error {
	opts := testOptions()
	if d.HasArg("identity") {
		opts.Identity = [16]byte{byte(number(s.t, d, "identity"))}
	}
	if d.HasArg("cache") {
		opts.CacheBytes = int64(number(s.t, d, "cache"))
	}
	l, err := Open(vfs.NewFault(s.mem, s.inject), "log", opts)
	if err == nil {
		s.l = l
	}
	return err
}

func (s *script) state() string {
	var out strings.Builder
	for _, id := range s.l.Copysets() {
		g, _ := s.l.Group(id)
		first, _ := g.FirstIndex()
		last, _ := g.LastIndex()
		hs := g.HardState()
		term, _ := g.Term(first - 1)
		fmt.Fprintf(&out, "%d: hs=%d/%d/%d behind %d/%d:", id, hs.GetTerm(), hs.GetVote(), hs.GetCommit(), first-1, term)
		for i := first; i <= last; i++ {
			term, _ := g.Term(i)
			fmt.Fprintf(&out, " %d/%d", i, term)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func (s *script) entries(d *datadriven.TestData) (string, error) {
	limit := uint64(1 << 30)
	if d.HasArg("max") {
		limit = number(s.t, d, "max")
	}
	g, ok := s.l.Group(layout.CopysetID(number(s.t, d, "copyset")))
	if !ok {
		return "", fmt.Errorf("no such copyset")
	}
	es, err := g.Entries(number(s.t, d, "lo"), number(s.t, d, "hi"), limit)
	var out strings.Builder
	for _, e := range es {
		fmt.Fprintf(&out, "%d/%d %v %d bytes\n", e.GetIndex(), e.GetTerm(), e.GetType(), len(e.GetData()))
	}
	return out.String(), err
}

func parseUpdates(t *testing.T, input string) []Update {
	t.Helper()
	var us []Update
	for _, line := range strings.Split(strings.TrimSpace(input), "\n") {
		fields := strings.Fields(line)
		var u Update
		scan(t, fields[0], "%d", &u.Copyset)
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			parseField(t, &u, key, value)
		}
		us = append(us, u)
	}
	return us
}

func parseField(t *testing.T, u *Update, key, value string) {
	t.Helper()
	switch key {
	case "hs":
		var term, vote, commit uint64
		scan(t, value, "%d/%d/%d", &term, &vote, &commit)
		u.HardState = &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
	case "entries":
		var from, to, term uint64
		var size int
		scan(t, value, "%d-%d@%dx%d", &from, &to, &term, &size)
		u.Entries = run(from, to, term, size)
	case "reset":
		u.Reset = &SnapshotMeta{}
		scan(t, value, "%d/%d", &u.Reset.Index, &u.Reset.Term)
	case "trunc":
		scan(t, value, "%d", &u.TruncateTo)
	case "remove":
		u.Remove = true
	case "sync":
		u.MustSync = true
	default:
		t.Fatalf("unknown field %s", key)
	}
}

func scan(t *testing.T, s, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Sscanf(s, format, args...); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
}
