package scrub

import "time"

const (
	// rateMin is the least that a pass reads per second, in bytes, unless Config.RateMax is less.
	rateMin = 1 << 20
	// paceNumerator/paceDenominator of the interval is the time in which a pass is to end.
	paceNumerator, paceDenominator = 9, 10
	// yieldFactor is how much longer than a read took the scrub waits after it when requests came in meanwhile, and
	// yieldMax the most that it waits for that.
	yieldFactor = 4
	yieldMax    = time.Second
)

// pace says how fast a pass goes.
type pace struct {
	interval time.Duration
	max      int64
}

// due is when a pass that began then is to end.
func (p pace) due(began time.Time) time.Time {
	return began.Add(p.interval / paceDenominator * paceNumerator)
}

// rate returns how much to read per second, in bytes, when left bytes are to be read at most.
func (p pace) rate(now time.Time, st *State, left int64) int64 {
	if st.Asked || p.interval == 0 {
		return p.max
	}
	room := p.due(st.Began).Sub(now)
	if room <= 0 {
		return p.max
	}
	need := int64(float64(max(left, 0)) / room.Seconds())
	return min(max(need, rateMin), p.max)
}

// late tells that a scheduled pass should have ended.
func (p pace) late(now time.Time, st *State) bool {
	return !st.Asked && p.interval > 0 && now.After(p.due(st.Began))
}

// pause returns how long to wait after a read of bytes that took that long; busy says that requests came in meanwhile.
func (p pace) pause(rate, bytes int64, took time.Duration, busy bool) time.Duration {
	wait := time.Duration(float64(bytes)/float64(rate)*float64(time.Second)) - took
	if busy {
		wait = max(wait, min(yieldFactor*took, yieldMax))
	}
	return max(wait, 0)
}
