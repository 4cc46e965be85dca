package compact

import "time"

const (
	// busyRequests is from how many requests per second on the disk is busy, busyWindow over which time that is measured at
	// least, and busyPause how long to wait then before it is looked again.
	busyRequests = 50
	busyWindow   = 200 * time.Millisecond
	busyPause    = time.Second
	// yieldFactor is how much longer than a step took to wait after it when requests came in meanwhile, and yieldMax the most
	// that is waited for that.
	yieldFactor = 9
	yieldMax    = 5 * time.Second
)

// pace says how fast it goes.
type pace struct {
	max int64
	// requests were counted when the last step ended. measured were at the time of at, and load tells what was found then.
	requests, measured uint64
	at                 time.Time
	load               bool
}

// begin notes the number of requests from which on is counted.
func (p *pace) begin(requests uint64) { p.requests, p.measured = requests, requests }

// busy tells whether the disk has too much to do for others.
func (p *pace) busy(now time.Time, requests uint64) bool {
	took := now.Sub(p.at)
	if took >= busyWindow {
		// What lies long back tells nothing of now: the rate is that of the last second at least.
		p.load = float64(requests-p.measured) > busyRequests*min(took.Seconds(), busyPause.Seconds())
		p.measured, p.at = requests, now
	}
	return p.load
}

// pause returns how long to wait after a step of so many bytes that took that long.
func (p *pace) pause(bytes int64, took time.Duration, requests uint64) time.Duration {
	var wait time.Duration
	if bytes > 0 {
		wait = max(time.Duration(float64(bytes)/float64(p.max)*float64(time.Second))-took, 0)
	}
	if requests != p.requests {
		wait = max(wait, min(yieldFactor*took, yieldMax))
	}
	p.requests = requests
	return wait
}
