package portal

import (
	"sync"
	"time"
)

// failedLogMax is how many failed logins are logged in a second. Whoever connects can make one.
const failedLogMax = 10

// failedLog decides which failed logins are logged.
type failedLog struct {
	mu struct {
		sync.Mutex
		second int64 // since 1970
		logged int   // in it
		hidden uint64
	}
}

// pass tells whether to log one, and how many were left out since the last one that was logged.
func (f *failedLog) pass(now time.Time) (hidden uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := now.Unix(); s != f.mu.second {
		f.mu.second, f.mu.logged = s, 0
	}
	if f.mu.logged == failedLogMax {
		f.mu.hidden++
		return 0, false
	}
	f.mu.logged++
	hidden, f.mu.hidden = f.mu.hidden, 0
	return hidden, true
}
