package portal

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// batch is a run of commands that are sent and answered in one go, without allocating anything.
type batch struct {
	i       *initiator
	step    int // from one command to the next, bytes
	out, in []byte
	depth   uint32
}

// newBatch makes depth reads or writes of size bytes.
func newBatch(i *initiator, op byte, depth, size int) *batch {
	b := &batch{i: i, depth: uint32(depth)}
	for n := range depth {
		lba := n * 64
		h := pdu.SCSICommand{
			Final: true, Read: op == 0x28, Write: op == 0x2a, Attr: pdu.AttrSimple, ITT: pdu.ITT(n),
			ExpectedDataTransferLength: uint32(size),
			CDB:                        [16]byte{op, 0, 0, 0, byte(lba >> 8), byte(lba), 0, 0, byte(size / 512)},
		}
		data := []byte(nil)
		if op == 0x2a {
			data = random(size)
		}
		b.out = append(h.AppendHeader(b.out, len(data)), data...)
	}
	b.step = len(b.out) / depth
	answer := pdu.BHSLen
	if op == 0x28 {
		answer += size
	}
	b.in = make([]byte, depth*answer)
	return b
}

// run sends the commands and reads the answers.
func (b *batch) run() error {
	for at := 0; at < len(b.out); at += b.step {
		sns := b.i.sns()
		binary.BigEndian.PutUint32(b.out[at+24:], uint32(sns.CmdSN))
		binary.BigEndian.PutUint32(b.out[at+28:], uint32(sns.ExpStatSN))
	}
	if _, err := b.i.nc.Write(b.out); err != nil {
		return err
	}
	if _, err := io.ReadFull(b.i.nc, b.in); err != nil {
		return err
	}
	b.i.stat += pdu.StatSN(b.depth)
	return nil
}

// TestNoAllocation counts what is allocated for a command once all that is reused is there.
func TestNoAllocation(t *testing.T) {
	if race {
		t.Skip("the pools of package sync forget on purpose under the race detector")
	}
	for _, mode := range []int32{always, never} {
		for _, op := range []byte{0x28, 0x2a} {
			for _, depth := range []int{1, 32} {
				t.Run(fmt.Sprintf("op %02x depth %d mode %d", op, depth, mode), func(t *testing.T) {
					// A worker that is started, and a timer of the runtime's, are no cost of a command.
					if n := allocations(t, mode, op, depth); n > 0.1 {
						t.Errorf("%.3f allocations for each command", n)
					}
				})
			}
		}
	}
}

// allocations returns how many allocations a command costs in the steady state.
func allocations(t *testing.T, mode int32, op byte, depth int) float64 {
	p, _, m := testServer(t, nil)
	m.disks[testVolume].mode.Store(mode)
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	i.ready()
	b := newBatch(i, op, depth, 4096)
	run := func(commands int) {
		for range commands / depth {
			if err := b.run(); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(2000)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
	run(640)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const commands = 6400
	run(commands)
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / commands
}

// latent is a medium whose reads take a millisecond, and which counts how many there are at a time.
type latent struct {
	scsi.Backend
	now, most atomic.Int32
}

func (l *latent) Read(ctx context.Context, p []byte, off int64) error {
	n := l.now.Add(1)
	defer l.now.Add(-1)
	for most := l.most.Load(); n > most && !l.most.CompareAndSwap(most, n); most = l.most.Load() {
	}
	time.Sleep(time.Millisecond)
	return l.Backend.Read(ctx, p, off)
}

// latentMediums has the same medium for everybody.
type latentMediums struct {
	*mediums
	l *latent
}

func (m latentMediums) Open(uint64, string) scsi.Backend { return m.l }

// TestConcurrency: a medium that takes its time is asked for all that the initiator wants at once.
func TestConcurrency(t *testing.T) {
	m := &mediums{disks: map[uint64]*disk{testVolume: newDisk(testSize)}}
	l := &latent{Backend: m.disks[testVolume]}
	cfg := Default()
	cfg.Addresses = []string{"127.0.0.1:0"}
	p, _ := serverOf(t, cfg, latentMediums{m, l}, func(addr string) target.Config { return exported(addr, testSize, 512) })
	i := dial(t, p)
	if err := i.login(testInitiator, 1); err != nil {
		t.Fatal(err)
	}
	i.ready()
	b := newBatch(i, 0x28, 32, 4096)
	for range 50 {
		if err := b.run(); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.most.Load(); n < 30 || n > 32 {
		t.Errorf("%d reads of 32 at a time", n)
	}
}

// TestSlowTaker: an initiator that does not take its answers for a while gets all of them, whole and in order, and the
// target neither waits for it nor forgets what the socket did not take.
func TestSlowTaker(t *testing.T) {
	for _, mode := range []int32{always, everyOther} {
		p, _, m := testServer(t, nil)
		d := m.disks[testVolume]
		d.mode.Store(mode)
		copy(d.data, random(testSize/8))
		i := dial(t, p)
		if err := i.nc.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
		if err := i.login(testInitiator, 1); err != nil {
			t.Fatal(err)
		}
		i.ready()
		const size = 64 << 10
		for range 3 {
			const depth = 120
			first := i.itt + 1
			for n := range uint32(depth) {
				i.rw(0x28, n*(size/512), size, nil)
			}
			time.Sleep(20 * time.Millisecond)
			got := map[pdu.ITT]bool{}
			for len(got) < depth {
				a := i.must(pdu.OpDataIn)
				i.stat++
				n := int(a.ITT() - first)
				if want := d.data[n*size : (n+1)*size]; !bytes.Equal(a.data, want) || got[a.ITT()] {
					t.Fatalf("mode %d: read %d: wrong data, or answered twice", mode, n)
				}
				got[a.ITT()] = true
			}
		}
		i.logout()
	}
}

// TestGoneTaker: an initiator that takes nothing and goes away leaves nothing behind, whoever was about to send. That no
// memory stays leased is checked by testServer.
func TestGoneTaker(t *testing.T) {
	for _, mode := range []int32{always, everyOther, never} {
		p, _, m := testServer(t, nil)
		m.disks[testVolume].mode.Store(mode)
		for n := range byte(8) {
			i := dial(t, p)
			if err := i.nc.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
				t.Fatal(err)
			}
			if err := i.login(testInitiator, n+1); err != nil {
				t.Fatal(err)
			}
			i.ready()
			for k := range uint32(120) {
				i.rw(0x28, k*128, 64<<10, nil)
			}
			time.Sleep(time.Duration(n) * 3 * time.Millisecond)
			_ = i.nc.Close()
		}
		eventually(t, "the sessions end", func() bool { return p.Stats().Sessions == 0 })
	}
}
