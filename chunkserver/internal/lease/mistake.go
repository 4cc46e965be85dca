package lease

import "time"

// Mistake is a rule that who uses the lease breaks on purpose, to see that a simulation finds it. The zero value breaks none.
type Mistake uint8

// The mistakes.
const (
	// TicksMadeUp: ticks that were missed are made up.
	TicksMadeUp Mistake = iota + 1
	// KeptInTransfer: a transfer does not take the lease away.
	KeptInTransfer
)

// Ticked returns from when the next tick is waited for, when the last one that was due came at last: from now.
func (m Mistake) Ticked(last, now, tick time.Duration) time.Duration {
	if m == TicksMadeUp {
		return last + tick
	}
	return now
}
