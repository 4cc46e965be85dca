package peernet

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// answering is a Host that answers each append, as a follower does when its log has the entries, or counts answers.
type answering struct {
	sink
	net    *Net
	answer bool
	done   chan int
}

func (a *answering) Deliver(from layout.ChunkserverID, msgs []multiraft.Message) {
	if !a.answer {
		a.done <- len(msgs)
		return
	}
	out := make([]multiraft.Message, 0, len(msgs))
	for i := range msgs {
		if m := &msgs[i]; bulky(m) {
			out = append(out, multiraft.Message{Copyset: m.Copyset, Stamp: m.Stamp, Raft: &raftpb.Message{
				Type: raftpb.MsgAppResp.Enum(), To: new(m.Raft.GetFrom()), From: new(m.Raft.GetTo()), Term: new(m.Raft.GetTerm()), Index: new(m.Raft.GetIndex() + 1),
			}})
		}
	}
	a.net.Send(from, out)
}

func benchNode(b *testing.B, id layout.ChunkserverID, answer bool) (*answering, string) {
	b.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	a := &answering{answer: answer, done: make(chan int, 1024)}
	a.net = New(Config{Cluster: [16]byte{9}, Self: id})
	a.net.Bind(a)
	s := stream.NewServer(lis, stream.Config{Cluster: [16]byte{9}, Self: id, Services: a.net.Streams()})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-served; a.net.Close() })
	return a, lis.Addr().String()
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReplicate measures an append of one entry to another chunkserver and its answer, over TCP: both ends are in
// this process, depth appends are under way.
func BenchmarkReplicate(b *testing.B) {
	for _, size := range []int{4 << 10, 256 << 10} {
		for _, depth := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("append=%dk/depth=%d", size>>10, depth), func(b *testing.B) { replicate(b, size+100, depth) })
		}
	}
}

func replicate(b *testing.B, size, depth int) {
	leader, la := benchNode(b, 1, false)
	follower, fa := benchNode(b, 2, true)
	leader.net.SetAddresses(map[layout.ChunkserverID]string{2: fa})
	follower.net.SetAddresses(map[layout.ChunkserverID]string{1: la})
	data := make([]byte, size)
	msg := func(i uint64) multiraft.Message {
		return multiraft.Message{Copyset: 5, Stamp: 1e15 + i, Raft: &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), To: new(uint64(0x1234567812)), From: new(uint64(0x1234567811)), Term: new(uint64(7)),
			LogTerm: new(uint64(7)), Index: new(1e6 + i), Commit: new(1e6 + i),
			Entries: []*raftpb.Entry{{Term: new(uint64(7)), Index: new(1e6 + i + 1), Data: data}},
		}}
	}
	for ready, end := false, time.Now().Add(10*time.Second); !ready; {
		leader.net.Send(2, []multiraft.Message{msg(0)})
		select {
		case n := <-leader.done:
			ready = n > 0
		case <-time.After(20 * time.Millisecond):
			if time.Now().After(end) {
				b.Fatal("no answer")
			}
		}
	}
	time.Sleep(50 * time.Millisecond)
	for len(leader.done) > 0 {
		<-leader.done
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	used := cpu()
	b.ResetTimer()
	flying, sent := 0, 0
	var out []multiraft.Message
	for done := 0; done < b.N; {
		out = out[:0]
		for ; flying < depth && sent < b.N; flying, sent = flying+1, sent+1 {
			out = append(out, msg(uint64(sent)))
		}
		if len(out) > 0 {
			leader.net.Send(2, out)
		}
		n := <-leader.done
		flying -= n
		done += n
	}
	b.ReportMetric(float64(cpu()-used)/float64(b.N), "cpu-ns/op")
}
