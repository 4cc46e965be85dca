package chunkrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// fake is a copyset that answers at once: what is measured is the way to it. Like the real one it encodes a command
// before Propose returns.
type fake struct {
	data []byte
	crc  uint32
}

func newFake() *fake {
	data := bytes.Repeat([]byte("ashlar!!"), layout.BlockSize/8)
	return &fake{data: data, crc: layout.CRC(data)}
}

func (f *fake) find(layout.CopysetID) group { return f }

func (f *fake) repair(context.Context, group, *blockstore.ChecksumError) error {
	return errors.New("no other peer")
}

func (f *fake) Propose(c *copyset.Command, w multiraft.Waiter) {
	c.AppendTo(make([]byte, 0, c.Size()))
	w.Done(multiraft.Reply{Status: multiraft.Done, Outcome: copyset.Outcome{Code: copyset.OK}})
}

func (f *fake) Read(_ layout.ChunkID, _ uint32, dst []byte, crcs []uint32, _ *multiraft.Access) ([]uint32, multiraft.Reply) {
	for at := 0; at < len(dst); at += layout.BlockSize {
		copy(dst[at:], f.data)
		crcs = append(crcs, f.crc)
	}
	return crcs, multiraft.Reply{Status: multiraft.Done, Outcome: copyset.Outcome{Code: copyset.OK}}
}

func (f *fake) Allocated(layout.ChunkID, uint32, uint32, []blockstore.Run, *multiraft.Access) ([]blockstore.Run, multiraft.Reply) {
	return nil, multiraft.Reply{Status: multiraft.Done, Outcome: copyset.Outcome{Code: copyset.OK}}
}

func (f *fake) Probe(layout.ChunkID, uint32, uint32, bool) error { return nil }
func (f *fake) Leading() bool                                    { return true }

// serve runs a server, and returns its address.
func serve(tb testing.TB, s *Server) string {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	st := stream.NewServer(lis, stream.Config{Cluster: testCluster, Self: 1, Services: map[stream.Purpose]stream.Service{stream.Chunk: s.Service()}})
	streams, stop := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	var reading, serving sync.WaitGroup
	serving.Go(func() { _ = st.Run(streams) })
	reading.Go(func() { s.Run(ctx) })
	tb.Cleanup(func() { stop(); serving.Wait(); cancel(); reading.Wait() })
	return lis.Addr().String()
}

// cpu returns the processor time that the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRPC measures a request from chunkclient's router to a copyset and back, over TCP: both ends are in this
// process. "depth" requests are in flight, in as many goroutines.
func BenchmarkRPC(b *testing.B) {
	for _, op := range []struct {
		name string
		op   chunkclient.Op
		size int
	}{{"write", chunkclient.Write, 4 << 10}, {"read", chunkclient.Read, 4 << 10}, {"write", chunkclient.Write, 256 << 10}, {"read", chunkclient.Read, 256 << 10}} {
		for _, depth := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("%s=%dk/depth=%d", op.name, op.size>>10, depth), func(b *testing.B) { benchmark(b, op.op, op.size, depth) })
		}
	}
}

func benchmark(b *testing.B, op chunkclient.Op, size, depth int) {
	s := New(nil, 2)
	s.groups = newFake()
	address := serve(b, s)
	r := chunkclient.NewRouter(chunkclient.Options{Cluster: testCluster[:]})
	defer r.Close()
	r.SetDirectory(chunkclient.Directory{
		Members:   map[layout.CopysetID][]layout.ChunkserverID{1: {1}},
		Addresses: map[layout.ChunkserverID]string{1: address},
	})
	data := bytes.Repeat([]byte("ashlar!!"), size/8)
	req := chunkclient.Request{
		Op: op, Copyset: 1, Chunk: layout.ChunkID{Volume: 9, Index: 77}, Offset: 12 * layout.BlockSize, Length: uint32(size),
		Initiator: 4, Fence: layout.Fence{Epoch: 123456, Generation: 3}, AccessGeneration: 3,
	}
	if op == chunkclient.Write {
		req.Data, req.CRCs, req.Seq, req.LowWater = data, layout.AppendCRCs(nil, data, 0), 1234567, 1234500
	}
	do := func(dst []byte) error {
		q := req
		if op == chunkclient.Write {
			dst = nil
		}
		resp, err := r.Do(context.Background(), &q, dst)
		if err == nil && resp.Status != chunkclient.OK {
			err = fmt.Errorf("status %d: %s", resp.Status, resp.Message)
		}
		return err
	}
	if err := do(make([]byte, size)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	used := cpu()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range depth {
		wg.Go(func() {
			dst := make([]byte, size)
			for left.Add(-1) >= 0 {
				if err := do(dst); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(cpu()-used)/float64(b.N), "cpu-ns/op")
}
