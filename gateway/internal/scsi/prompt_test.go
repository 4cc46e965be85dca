package scsi

import (
	"bytes"
	"testing"
)

// promptMemory is a memory that has the answer at hand when ready.
type promptMemory struct {
	*memory
	ready bool
	err   error
	tries int
}

func (m *promptMemory) TryRead(p []byte, off int64) (bool, error) {
	m.tries++
	if m.ready && m.err == nil {
		copy(p, m.data[off:])
	}
	return m.ready, m.err
}

func (m *promptMemory) TryWrite(p []byte, off int64) (bool, error) {
	m.tries++
	if m.ready && m.err == nil {
		copy(m.data[off:], p)
	}
	return m.ready, m.err
}

// promptNexus is a nexus over m at LUN 0, with no unit attention pending.
func promptNexus(t *testing.T, m Backend) *Nexus {
	t.Helper()
	unit, err := NewLogicalUnit(testConfig(1<<20/512, 512))
	if err != nil {
		t.Fatal(err)
	}
	luns, err := NewLUNMap(Mapping{LUN: 0, Unit: unit, Backend: m})
	if err != nil {
		t.Fatal(err)
	}
	n := NewNexus(NexusConfig{InitiatorPort: "i", InitiatorName: "i"}, luns)
	t.Cleanup(n.Close)
	return n
}

func TestTry(t *testing.T) {
	m := &promptMemory{memory: newMemory(1 << 20)}
	n := promptNexus(t, m)
	data := bytes.Repeat([]byte{7}, 512)
	write := func() *Command {
		return &Command{CDB: []byte{0x2A, 0, 0, 0, 0, 3, 0, 0, 1, 0}, DataOut: data}
	}
	read := func() *Command {
		return &Command{CDB: []byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0}, MaxDataIn: 512}
	}
	for _, c := range []*Command{write(), read()} {
		if n.Try(c) || c.Status != StatusGood || c.DataIn != nil || c.Transfer != 0 || c.trial != trialNone {
			t.Errorf("%02X: a medium that is not ready: %+v", c.CDB[0], c)
		}
	}
	m.ready = true
	if c := write(); !n.Try(c) || c.Status != StatusGood || c.Transfer != 512 || m.data[3*512] != 7 {
		t.Errorf("write: %+v", c)
	}
	if c := read(); !n.Try(c) || c.Status != StatusGood || !bytes.Equal(c.DataIn, data) {
		t.Errorf("read: %+v", c)
	}
	m.err = ErrNoSpace
	if c := write(); !n.Try(c) || c.Status != StatusCheckCondition || c.SenseCode() != SpaceAllocationFailed {
		t.Errorf("a write without space: %v", c.SenseCode())
	}
	m.tries = 0
	if c := (&Command{CDB: []byte{0x28, 0, 0xFF, 0, 0, 0, 0, 0, 1, 0}, MaxDataIn: 512}); !n.Try(c) || c.SenseCode() != LBAOutOfRange {
		t.Errorf("beyond the end: %v", c.SenseCode())
	}
	for _, cdb := range [][]byte{
		{},
		{0x2E, 0, 0, 0, 0, 3, 0, 0, 1, 0},
		{0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{0x12, 0, 0, 0, 36, 0},
		{0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0},
	} {
		if n.Try(&Command{CDB: cdb, DataOut: data}) {
			t.Errorf("%X: tried", cdb)
		}
	}
	if m.tries != 0 {
		t.Errorf("%d tries of commands that must not be tried", m.tries)
	}
	if promptNexus(t, newMemory(1<<20)).Try(write()) {
		t.Error("tried on a medium that can not tell")
	}
}
