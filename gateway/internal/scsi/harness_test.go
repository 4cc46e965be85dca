package scsi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// memory is a Backend over a slice. Methods are atomic against each other.
type memory struct {
	mu        sync.RWMutex
	data      []byte
	allocated []bool // per ProvisioningBlock
	fail      error  // returned by everything, changing nothing
	gate      func(ctx context.Context) error
	reads     atomic.Int64
	calls     []string // what was changed, in order: kind of call, not its data
	largest   int
}

func newMemory(size int64) *memory {
	blocks := (size + ProvisioningBlock - 1) / ProvisioningBlock
	return &memory{data: make([]byte, size), allocated: make([]bool, blocks)}
}

func (m *memory) enter(ctx context.Context) error {
	if m.gate != nil {
		if err := m.gate(ctx); err != nil {
			return err
		}
	}
	return m.fail
}

func (m *memory) Read(ctx context.Context, p []byte, off int64) error {
	m.reads.Add(1)
	if err := m.enter(ctx); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if n := copy(p, m.data[off:]); n != len(p) {
		panic("read beyond the end")
	}
	return nil
}

func (m *memory) Write(ctx context.Context, p []byte, off int64) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	if len(p) == 0 {
		panic("empty write")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.largest = max(m.largest, len(p))
	m.calls = append(m.calls, "write")
	if n := copy(m.data[off:], p); n != len(p) {
		panic("write beyond the end")
	}
	for b := off / ProvisioningBlock; b*ProvisioningBlock < off+int64(len(p)); b++ {
		m.allocated[b] = true
	}
	return nil
}

func (m *memory) Unmap(ctx context.Context, off, length int64) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	if off%ProvisioningBlock != 0 || length%ProvisioningBlock != 0 || length == 0 {
		panic("unaligned unmap")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, "unmap")
	clear(m.data[off : off+length])
	clear(m.allocated[off/ProvisioningBlock : (off+length)/ProvisioningBlock])
	return nil
}

func (m *memory) CompareAndWrite(ctx context.Context, off int64, compare, write []byte) (int, error) {
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range compare {
		if m.data[off+int64(i)] != compare[i] {
			return i, nil
		}
	}
	copy(m.data[off:], write)
	m.allocated[off/ProvisioningBlock] = true
	return -1, nil
}

func (m *memory) Allocated(ctx context.Context, off, length int64) (bool, int64, error) {
	if err := m.enter(ctx); err != nil {
		return false, 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	first := off / ProvisioningBlock
	b := first
	for ; b*ProvisioningBlock < off+length && m.allocated[b] == m.allocated[first]; b++ {
	}
	return m.allocated[first], min(b*ProvisioningBlock-off, length), nil
}

// rig is one nexus on one logical unit at LUN 0, without the first unit attention.
type rig struct {
	t     testing.TB
	unit  *LogicalUnit
	mem   *memory
	luns  *LUNMap
	nexus *Nexus
}

var testPort = TargetPort{
	Name:       "iqn.2026-11.dev.ashlar:demo,t,0x0001",
	RelativeID: 0x0102,
	Group:      0x0304,
	Protocol:   5,
}

// testCopies is the copy manager of all rigs; its clock stands still.
var testCopies = NewCopyManager(func() time.Time { return time.Unix(1, 0) }, rand.Reader)

func testConfig(blocks int64, blockLength int) UnitConfig {
	c := UnitConfig{
		Identity: Identity{
			Serial: "0123456789abcdef", Vendor: DefaultVendor, Product: "89ABCDEF volume", Revision: "0001",
		},
		Capacity:    blocks * int64(blockLength),
		BlockLength: blockLength,
		Limits:      DefaultLimits(),
	}
	copy(c.Identity.NAA[:], "\x60\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C\x0D\x0E\x0F")
	return c
}

func newRig(t testing.TB, config UnitConfig, change ...func(*Mapping)) *rig {
	t.Helper()
	unit, err := NewLogicalUnit(config)
	if err != nil {
		t.Fatal(err)
	}
	mem := newMemory(config.Capacity)
	m := Mapping{Unit: unit, Backend: mem}
	for _, f := range change {
		f(&m)
	}
	luns, err := NewLUNMap(m)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, unit: unit, mem: mem, luns: luns}
	r.nexus = r.login(NoSense)
	return r
}

// disk512 and disk4096 are 4 MiB and some blocks: not a whole number of ProvisioningBlocks with 512-byte blocks.
func disk512(t testing.TB) *rig  { return newRig(t, testConfig(8197, 512)) }
func disk4096(t testing.TB) *rig { return newRig(t, testConfig(1025, 4096)) }

func (r *rig) login(attention SenseCode) *Nexus {
	return NewNexus(NexusConfig{
		InitiatorPort: "iqn.x:host,i,0x1", InitiatorName: "iqn.x:host", TargetPort: testPort,
		Attention: attention, TaskManagement: TaskAbort | TaskAbortSet | TaskClearSet | TaskUnitReset,
		Copies: testCopies,
	}, r.luns)
}

// run executes one command at LUN 0 as an initiator that takes all it is sent.
func (r *rig) run(cdb string, dataOut ...byte) *Command {
	r.t.Helper()
	c := &Command{CDB: fromHex(r.t, cdb), DataOut: dataOut, MaxDataIn: 64 << 20}
	if err := r.nexus.Execute(r.t.Context(), c); err != nil {
		r.t.Fatalf("%s: %v", cdb, err)
	}
	return c
}

// good runs a command that must succeed and returns its data-in.
func (r *rig) good(cdb string, dataOut ...byte) []byte {
	r.t.Helper()
	c := r.run(cdb, dataOut...)
	wantGood(r.t, c)
	return c.DataIn
}

// sense runs a command that must end with code.
func (r *rig) sense(code SenseCode, cdb string, dataOut ...byte) *Command {
	r.t.Helper()
	c := r.run(cdb, dataOut...)
	wantSense(r.t, c, code)
	return c
}

func wantGood(t testing.TB, c *Command) {
	t.Helper()
	if c.Status != StatusGood {
		t.Fatalf("% X: %v, sense %v", c.CDB, c.Status, c.SenseCode())
	}
}

func wantSense(t testing.TB, c *Command, code SenseCode) {
	t.Helper()
	if c.Status != StatusCheckCondition || c.SenseCode() != code {
		t.Fatalf("% X: %v, sense %v, want CHECK CONDITION %v", c.CDB, c.Status, c.SenseCode(), code)
	}
	if c.DataIn != nil {
		t.Fatalf("% X: %d bytes of data-in with CHECK CONDITION", c.CDB, len(c.DataIn))
	}
}

// wantBytes compares with bytes written as in the standards: hexadecimal, spaces where they help.
func wantBytes(t testing.TB, got []byte, want string) {
	t.Helper()
	if w := fromHex(t, want); !bytes.Equal(got, w) {
		t.Fatalf("got  % X\nwant % X", got, w)
	}
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pattern is n bytes that tell their place.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*7 ^ seed
	}
	return p
}

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }
