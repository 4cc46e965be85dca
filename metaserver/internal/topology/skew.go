package topology

import "time"

// skew is by how much a node's clock differs from the own one, over the last heartbeats. A heartbeat that was on its way for
// long, because its sender looked for the active metaserver, carries an old time; so the least difference counts.
type skew struct {
	last [3]time.Duration
	next int
}

// add takes a heartbeat in that told the time at and came at now; a zero at tells nothing.
func (s *skew) add(at, now time.Time) {
	d := time.Duration(0)
	if !at.IsZero() {
		// The wall clocks are compared, not the monotonic ones.
		d = at.Round(0).Sub(now.Round(0))
	}
	s.last[s.next%len(s.last)] = d
	s.next++
}

// value returns the difference, 0 until enough heartbeats came.
func (s *skew) value() time.Duration {
	least := s.last[0]
	for _, d := range s.last[1:] {
		if d.Abs() < least.Abs() {
			least = d
		}
	}
	return least
}
