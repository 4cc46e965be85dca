package portal

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

const (
	testTarget    = "iqn.2026-11.dev.ashlar:test"
	testInitiator = "iqn.2026-11.dev.ashlar:initiator"
	testVolume    = 7
)

// disk is a medium in memory, without a lock where nothing needs one: writers of different bytes do not meet.
type disk struct {
	mu    sync.RWMutex // COMPARE AND WRITE and UNMAP against the rest
	data  []byte
	used  []atomic.Bool
	hold  atomic.Pointer[chan struct{}] // when set, every write waits for it, or for its ctx
	calls atomic.Int64
	tries atomic.Int64
	mode  atomic.Int32 // of the tries, which succeed
}

// Which tries succeed.
const (
	everyOther int32 = iota
	always
	never
)

// prompt tells whether a try succeeds.
func (d *disk) prompt() bool {
	if d.hold.Load() != nil {
		return false
	}
	mode := d.mode.Load()
	return mode == always || mode == everyOther && d.tries.Add(1)%2 == 0
}

// TryRead implements scsi.Prompt.
func (d *disk) TryRead(p []byte, off int64) (bool, error) {
	if !d.prompt() {
		return false, nil
	}
	return true, d.Read(context.Background(), p, off)
}

// TryWrite implements scsi.Prompt.
func (d *disk) TryWrite(p []byte, off int64) (bool, error) {
	if !d.prompt() {
		return false, nil
	}
	return true, d.Write(context.Background(), p, off)
}

func newDisk(size int64) *disk {
	return &disk{data: make([]byte, size), used: make([]atomic.Bool, size/scsi.ProvisioningBlock)}
}

// holds tells whether the medium has data at off.
func (d *disk) holds(off int64, data []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Equal(d.data[off:off+int64(len(data))], data)
}

func (d *disk) Read(_ context.Context, p []byte, off int64) error {
	d.calls.Add(1)
	d.mu.RLock()
	defer d.mu.RUnlock()
	copy(p, d.data[off:])
	return nil
}

func (d *disk) Write(ctx context.Context, p []byte, off int64) error {
	d.calls.Add(1)
	if gate := d.hold.Load(); gate != nil {
		select {
		case <-*gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	copy(d.data[off:], p)
	for b := off / scsi.ProvisioningBlock; b*scsi.ProvisioningBlock < off+int64(len(p)); b++ {
		d.used[b].Store(true)
	}
	return nil
}

func (d *disk) Unmap(_ context.Context, off, length int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+length])
	for b := off / scsi.ProvisioningBlock; b < (off+length)/scsi.ProvisioningBlock; b++ {
		d.used[b].Store(false)
	}
	return nil
}

func (d *disk) CompareAndWrite(_ context.Context, off int64, compare, write []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.data[off : off+int64(len(compare))]
	if !bytes.Equal(at, compare) {
		for i := range at {
			if at[i] != compare[i] {
				return i, nil
			}
		}
	}
	copy(at, write)
	for b := off / scsi.ProvisioningBlock; b*scsi.ProvisioningBlock < off+int64(len(write)); b++ {
		d.used[b].Store(true)
	}
	return -1, nil
}

func (d *disk) Allocated(_ context.Context, off, length int64) (bool, int64, error) {
	b := off / scsi.ProvisioningBlock
	is := d.used[b].Load()
	end := b + 1
	for end*scsi.ProvisioningBlock < off+length && d.used[end].Load() == is {
		end++
	}
	return is, min(end*scsi.ProvisioningBlock-off, length), nil
}

// mediums gives every initiator the same disk of a volume, and notes what is asked of it.
type mediums struct {
	disks map[uint64]*disk

	mu    sync.Mutex
	notes []string
}

func (m *mediums) Open(volume uint64, _ string) scsi.Backend { return m.disks[volume] }

func (m *mediums) Release(scsi.Backend) {}

func (m *mediums) Abort(volume uint64, initiator string) {
	m.note(fmt.Sprintf("abort %d %s", volume, initiator))
}

func (m *mediums) Acknowledged(volume uint64, initiator string) {
	m.note(fmt.Sprintf("acknowledged %d %s", volume, initiator))
}

func (m *mediums) note(s string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, s)
}

func (m *mediums) noted() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.notes...)
}

// unitConfig describes the logical unit of a disk.
func unitConfig(size int64, block int) scsi.UnitConfig {
	return scsi.UnitConfig{
		Identity: scsi.Identity{
			NAA:    [16]byte{0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
			Serial: "0000000000000007", Vendor: scsi.DefaultVendor, Product: "TEST0007", Revision: "0001",
		},
		Capacity: size, BlockLength: block, Limits: scsi.DefaultLimits(),
	}
}

// exported is a configuration with one target, which anybody may use unless access says otherwise.
func exported(portal string, size int64, block int, access ...target.Access) target.Config {
	if len(access) == 0 {
		access = []target.Access{{Initiator: target.AnyInitiator}}
	}
	return target.Config{
		Portals: []target.Portal{{Address: portal, Group: 1}},
		Volumes: map[uint64]scsi.UnitConfig{testVolume: unitConfig(size, block)},
		Targets: []target.Target{{
			Name: testTarget, Alias: "test", LUNs: []target.LUN{{Number: 0, Volume: testVolume}}, Access: access,
		}},
	}
}

// limits of the session table in tests.
var testLimits = target.Limits{Sessions: 1024, SessionsPerInitiator: 64}

// serverOf makes a portal over m that exports c, and has it closed with the test.
func serverOf(t testing.TB, cfg Config, m target.Mediums, c func(addr string) target.Config) (*Portal, *target.Registry) {
	t.Helper()
	r := target.New(m, testLimits)
	p, err := New(cfg, r, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(c(p.Addrs()[0].String())); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if used, _ := p.pool.Used(); used != 0 {
			t.Errorf("%d bytes are still leased or reserved", used)
		}
	})
	return p, r
}
