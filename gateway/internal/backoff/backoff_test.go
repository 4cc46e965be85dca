package backoff

import (
	"fmt"
	"testing"
	"time"
)

const (
	home, evil = "10.0.0.1", "10.9.9.9"
	host       = "iqn.2001-04.com.example:host"
)

// clock is a time that the test moves.
type clock struct{ now time.Time }

func (c *clock) add(d time.Duration) { c.now = c.now.Add(d) }

func table(t *testing.T, change func(*Config)) (*Table, *clock) {
	t.Helper()
	cfg := Default()
	cfg.AddressFree, cfg.NameFree = 4, 2
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return New(cfg), &clock{time.Unix(1_800_000_000, 0)}
}

func TestWaitDoubles(t *testing.T) {
	b, c := table(t, nil)
	for i, want := range []time.Duration{0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60} {
		b.Failed(c.now, evil, host)
		if got := b.Wait(c.now, evil, host); got != want*time.Second {
			t.Errorf("after %d failures: %v, want %v s", i+1, got, want)
		}
	}
	c.add(59 * time.Second)
	if got := b.Wait(c.now, evil, host); got != time.Second {
		t.Errorf("%v are left, want 1s", got)
	}
	c.add(time.Second)
	if got := b.Wait(c.now, evil, host); got != 0 {
		t.Errorf("%v are left, want none", got)
	}
	for range 100 { // the shift does not overflow
		b.Failed(c.now, evil, host)
	}
	if got := b.Wait(c.now, evil, host); got != time.Minute {
		t.Errorf("after very many failures: %v", got)
	}
	c.add(time.Hour)
	b.Failed(c.now, evil, host)
	if got := b.Wait(c.now, evil, host); got != 0 {
		t.Errorf("old failures are not forgotten: %v", got)
	}
}

// TestNamesFromOneAddress guesses under many names.
func TestNamesFromOneAddress(t *testing.T) {
	b, c := table(t, nil)
	for i := range 6 {
		b.Failed(c.now, evil, fmt.Sprint(host, i))
	}
	if got := b.Wait(c.now, evil, "another name"); got != 2*time.Second {
		t.Errorf("the address waits %v", got)
	}
	if got := b.Wait(c.now, home, fmt.Sprint(host, 1)); got != 0 {
		t.Errorf("another address waits %v", got)
	}
}

// TestNameFromManyAddresses guesses under one name; the host that has it is not locked out.
func TestNameFromManyAddresses(t *testing.T) {
	b, c := table(t, nil)
	for i := range 10 {
		b.Failed(c.now, fmt.Sprint("10.9.9.", i), host)
	}
	if got := b.Wait(c.now, "10.9.9.1", host); got != time.Minute {
		t.Errorf("an address that failed waits %v", got)
	}
	if got := b.Wait(c.now, home, host); got != 0 {
		t.Errorf("the host waits %v", got)
	}
}

// TestTrust fails from behind the address of a host that logged in.
func TestTrust(t *testing.T) {
	b, c := table(t, nil)
	b.Succeeded(c.now, home, host)
	for range 10 {
		b.Failed(c.now, home, "iqn.2001-04.com.example:evil")
	}
	if got := b.Wait(c.now, home, "iqn.2001-04.com.example:evil"); got == 0 {
		t.Error("who failed is not held off")
	}
	if got := b.Wait(c.now, home, host); got != 0 {
		t.Errorf("the host waits %v", got)
	}
	for range 3 {
		b.Failed(c.now, home, host)
	}
	if got := b.Wait(c.now, home, host); got != time.Second {
		t.Errorf("a trusted pair that fails waits %v", got)
	}
	b.Succeeded(c.now, home, host)
	if got := b.Wait(c.now, home, host); got != 0 {
		t.Errorf("after a success: %v", got)
	}
	c.add(time.Hour)
	for range 10 {
		b.Failed(c.now, home, "iqn.2001-04.com.example:evil")
	}
	if got := b.Wait(c.now, home, host); got == 0 {
		t.Error("trust does not end")
	}
}

// TestBounded fails under very many names and from very many addresses: the tables do not grow, and who fails all the time
// stays in them.
func TestBounded(t *testing.T) {
	b, c := table(t, func(c *Config) { c.Entries = 16 })
	for i := range 5000 {
		b.Failed(c.now, fmt.Sprint(i), fmt.Sprint("name", i))
		b.Succeeded(c.now, fmt.Sprint("good", i), fmt.Sprint("name", i))
		b.Failed(c.now, evil, fmt.Sprint("name", i))
		if n := b.Len(); n > 3*16 {
			t.Fatalf("%d entries", n)
		}
	}
	if b.Wait(c.now, evil, "any") != time.Minute {
		t.Error("who fails all the time is forgotten")
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no free failure": func(c *Config) { c.AddressFree = 0 },
		"no base":         func(c *Config) { c.Base = 0 },
		"max below base":  func(c *Config) { c.Max = c.Base - 1 },
		"short memory":    func(c *Config) { c.Forget = c.Max - 1 },
		"no entries":      func(c *Config) { c.Entries = 0 },
	} {
		c := Default()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
