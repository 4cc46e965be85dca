package chunkrpc

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/storage/chunkclient"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream/streamtest"
)

// TestDamagedOnTheWay: data that changes between the processes is noticed by who receives it, and sent again: a write is
// not proposed with it, a read does not return it. The stream stays, so nothing else on it has to be sent again.
func TestDamagedOnTheWay(t *testing.T) {
	const fill, skip = 0xa7, 512
	data := bytes.Repeat([]byte{fill}, 2*skip+4*layout.BlockSize)
	n := &noting{got: map[layout.Seq][]byte{}, hold: make(chan struct{})}
	close(n.hold)
	n.data = data[:layout.BlockSize]
	n.crc = layout.CRC(n.data)
	s := New(nil, 2)
	s.groups = n
	wire := &streamtest.Noise{Mark: n.data}
	r := chunkclient.NewRouter(chunkclient.Options{Cluster: testCluster[:]})
	address := wire.Listen(t, serve(t, s))
	defer r.Close()
	r.SetDirectory(chunkclient.Directory{
		Members:   map[layout.CopysetID][]layout.ChunkserverID{1: {1}},
		Addresses: map[layout.ChunkserverID]string{1: address},
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	q := chunkclient.Request{
		Op: chunkclient.Write, Copyset: 1, Chunk: layout.ChunkID{Volume: 9}, Offset: layout.BlockSize - skip, Length: uint32(len(data)),
		Initiator: 4, Fence: layout.Fence{Epoch: 1}, AccessGeneration: 1, Seq: 7, Data: data, CRCs: layout.AppendCRCs(nil, data, skip),
	}
	if resp, err := r.Do(ctx, &q, nil); err != nil || resp.Status != chunkclient.OK {
		t.Errorf("write: %+v, %v", resp, err)
	}
	n.mu.Lock()
	if !bytes.Equal(n.got[7], data) {
		t.Error("what was proposed is not what was written")
	}
	n.mu.Unlock()
	if d := s.stats.Damaged.Load(); d != 1 {
		t.Errorf("%d requests counted as damaged", d)
	}
	q = chunkclient.Request{
		Op: chunkclient.Read, Copyset: 1, Chunk: layout.ChunkID{Volume: 9}, Length: 16 * layout.BlockSize,
		Initiator: 4, Fence: layout.Fence{Epoch: 1}, AccessGeneration: 1,
	}
	dst := make([]byte, q.Length)
	if resp, err := r.Do(ctx, &q, dst); err != nil || resp.Status != chunkclient.OK || !bytes.Equal(dst, bytes.Repeat(n.data, 16)) {
		t.Errorf("read: %+v, %v", resp, err)
	}
	if !wire.There.Load() || !wire.Back.Load() {
		t.Error("nothing was changed")
	}
	if reads := s.stats.Reads.Load(); reads != 2 {
		t.Errorf("%d reads, not one again", reads)
	}
}
