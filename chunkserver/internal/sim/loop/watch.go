package loop

import (
	"fmt"
	"runtime"
	"time"
)

// stacksMax bounds the stacks that a StuckError tells, in bytes.
const stacksMax = 1 << 20

// StuckError means that a step did not end: something waits in a way that the loop does not see, or goes round and round.
type StuckError struct {
	// After is how long it was waited for.
	After time.Duration
	// Stacks are those of all goroutines.
	Stacks []byte
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("one step takes longer than %v\n%s", e.After, e.Stacks)
}

// Watch waits until done is closed, by the goroutine that runs the loop. It returns a *StuckError when one step takes longer than
// stuck, twice that at most, in real time: the loop can not be ended then.
func (l *Loop) Watch(done <-chan struct{}, stuck time.Duration) error {
	look := time.NewTicker(stuck)
	defer look.Stop()
	for last := l.beat.Load(); ; {
		select {
		case <-done:
			return nil
		case <-look.C:
			beat := l.beat.Load()
			if beat == last {
				all := make([]byte, stacksMax)
				return &StuckError{After: stuck, Stacks: all[:runtime.Stack(all, true)]}
			}
			last = beat
		}
	}
}
