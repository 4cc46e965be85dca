package backoff

import (
	"fmt"
	"sync"
	"time"
)

// Config is how patient a Table is.
type Config struct {
	// AddressFree and NameFree are how many failures of an address, and of an initiator name, cost nothing; at least 1.
	AddressFree, NameFree int
	// Base is the first wait, and Max the longest.
	Base, Max time.Duration
	// Forget is how long after its last failure an entry counts, and how long trust lasts.
	Forget time.Duration
	// Entries bounds each of the three tables.
	Entries int
}

// Default returns a configuration that an administrator who mistypes a secret does not notice.
func Default() Config {
	return Config{AddressFree: 32, NameFree: 8, Base: time.Second, Max: time.Minute, Forget: time.Hour, Entries: 4096}
}

// Validate reports the first value that can not be used.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name      string
		v, lo, hi int64
	}{
		{"AddressFree", int64(c.AddressFree), 1, 1 << 30},
		{"NameFree", int64(c.NameFree), 1, 1 << 30},
		{"Base", int64(c.Base), int64(time.Millisecond), int64(time.Hour)},
		{"Max", int64(c.Max), int64(c.Base), int64(time.Hour)},
		{"Forget", int64(c.Forget), int64(c.Max), int64(7 * 24 * time.Hour)},
		{"Entries", int64(c.Entries), 1, 1 << 20},
	} {
		if f.v < f.lo || f.v > f.hi {
			return fmt.Errorf("backoff: %s is %d, must be %d to %d", f.name, f.v, f.lo, f.hi)
		}
	}
	return nil
}

// pair is an initiator name as used from an address.
type pair struct{ address, name string }

// Table counts failures. Its methods may be called from any goroutine.
type Table struct {
	cfg Config
	mu  struct {
		sync.Mutex
		addresses, names *recent[string]
		trusted          *recent[pair]
	}
}

// New returns an empty table; cfg must be valid.
func New(cfg Config) *Table {
	t := &Table{cfg: cfg}
	t.mu.addresses = newRecent[string](cfg.Entries)
	t.mu.names = newRecent[string](cfg.Entries)
	t.mu.trusted = newRecent[pair](cfg.Entries)
	return t
}

// Wait returns how long an initiator name that tries from an address is still to be refused; 0: not at all.
func (t *Table) Wait(now time.Time, address, name string) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.mu.trusted.find(pair{address, name}, now, t.cfg.Forget); e != nil {
		return t.left(e, t.cfg.NameFree, now)
	}
	from := t.mu.addresses.find(address, now, t.cfg.Forget)
	if from == nil {
		return 0
	}
	wait := t.left(from, t.cfg.AddressFree, now)
	if e := t.mu.names.find(name, now, t.cfg.Forget); e != nil {
		wait = max(wait, t.left(e, t.cfg.NameFree, now))
	}
	return wait
}

// left returns how much of the wait that e has earned is left.
func (t *Table) left(e *entry, free int, now time.Time) time.Duration {
	over := e.failures - free
	if over <= 0 {
		return 0
	}
	wait := t.cfg.Max
	if over <= 20 { // 2^20 is more than an hour of milliseconds
		wait = min(wait, t.cfg.Base<<(over-1))
	}
	return max(0, wait-now.Sub(e.last))
}

// Failed counts a failure.
func (t *Table) Failed(now time.Time, address, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.mu.trusted.find(pair{address, name}, now, t.cfg.Forget); e != nil {
		e.fail(now)
		return
	}
	t.mu.addresses.touch(address, now, t.cfg.Forget).fail(now)
	t.mu.names.touch(name, now, t.cfg.Forget).fail(now)
}

// Succeeded makes (address, name) trusted and forgets its failures.
func (t *Table) Succeeded(now time.Time, address, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*t.mu.trusted.touch(pair{address, name}, now, t.cfg.Forget) = entry{last: now}
}

// Len returns how many entries there are in all.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.addresses.at) + len(t.mu.names.at) + len(t.mu.trusted.at)
}
