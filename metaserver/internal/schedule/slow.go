package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// When a disk is slow. A disk is compared with the others, because what is slow on one kind of disk is quick on another,
// and because a load that makes all of them slow is no fault of one.
const (
	// slowFloor: no median below it is slow, whatever the others do.
	slowFloor = 50 * time.Millisecond
	// slowFactor: a median above so many times that of the others is.
	slowFactor = 10
	// slowLooks is how many looks in a row must find it slow.
	slowLooks = 3
	// wellLooks is how many looks in a row must find it well, at half of both limits, before it counts as well again.
	wellLooks = 30
	// stalledMax: a disk that owes an answer for longer is slow at once.
	stalledMax = 2 * time.Second
)

// Disk is what a chunkserver last said of how quickly its disk answers.
type Disk struct {
	// Syncs is how many syncs of the raft log the medians of the last seconds are made of.
	Syncs    uint64
	SyncP50  time.Duration
	SyncP99  time.Duration
	Usual    time.Duration // median of the last hours, 0 when not known
	Reads    uint64
	ReadP50  time.Duration
	ReadP99  time.Duration
	Stalled  time.Duration
	UsageAge time.Duration
}

// Slowness is what looks at a disk have found. The zero value is that of a disk that nobody has looked at.
type Slowness struct {
	// Why says why the disk is slow; empty: it is not.
	Why string
	bad int // looks in a row that found it slow
	out int // looks in a row that found it well
}

// Slow tells whether nothing should be led on the disk.
func (s *Slowness) Slow() bool { return s.Why != "" }

// Look judges a disk beside what is normal. It is called about once a second, while the chunkserver is up. A disk on which
// nothing is written is neither slow nor well for itself; it counts as well, because the next writes tell.
func (s *Slowness) Look(d Disk, normal time.Duration) {
	limit := max(slowFloor, slowFactor*normal)
	switch {
	case d.Stalled >= stalledMax:
		s.bad, s.out = slowLooks, 0
		s.Why = fmt.Sprintf("it has not answered for %v", d.Stalled.Round(100*time.Millisecond))
		return
	case d.Syncs > 0 && d.SyncP50 > limit:
		s.bad, s.out = s.bad+1, 0
	case d.Syncs > 0 && d.SyncP50 > limit/2:
		s.bad, s.out = 0, 0
	default:
		s.bad, s.out = 0, s.out+1
	}
	switch {
	case s.bad >= slowLooks:
		s.Why = fmt.Sprintf("a sync of its log takes %v, that of others %v%s", d.SyncP50.Round(time.Millisecond),
			normal.Round(10*time.Microsecond), usual(d.Usual))
	case s.out >= wellLooks:
		s.Why = ""
	}
}

func usual(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf(", its own usually %v", d.Round(10*time.Microsecond))
}

// Normal returns what is normal for each chunkserver that is up: the median of the other ones of its pool that write, or
// what is usual for itself when there is none.
func Normal(c *Cluster) map[layout.ChunkserverID]time.Duration {
	pools := map[string][]*Server{}
	out := map[layout.ChunkserverID]time.Duration{}
	for _, s := range c.Servers {
		if s.Up && s.Disk.Syncs > 0 {
			pools[s.Pool] = append(pools[s.Pool], s)
		} else if s.Up {
			out[s.ID] = s.Disk.Usual
		}
	}
	for _, all := range pools {
		slices.SortFunc(all, func(a, b *Server) int {
			return cmp.Or(cmp.Compare(a.Disk.SyncP50, b.Disk.SyncP50), cmp.Compare(a.ID, b.ID))
		})
		for i, s := range all {
			middle := (len(all) - 2) / 2 // of the others: the lower one of two
			switch {
			case len(all) == 1:
				out[s.ID] = s.Disk.Usual
				continue
			case middle >= i:
				middle++
			}
			out[s.ID] = all[middle].Disk.SyncP50
		}
	}
	return out
}

// Evacuate returns who is to lead the copysets that are led on slow disks: of those that can take over at once, one that
// leads the fewest. A copyset that nobody better can lead stays.
func Evacuate(c *Cluster) map[layout.CopysetID]layout.PeerID {
	leads := map[layout.ChunkserverID]int{}
	for _, s := range c.Copysets {
		if s.Leader != nil {
			leads[s.LeaderOn]++
		}
	}
	out := map[layout.CopysetID]layout.PeerID{}
	for _, s := range c.Copysets {
		if from := c.Servers[s.LeaderOn]; s.Leader == nil || from == nil || !from.Slow {
			continue
		}
		var best Member
		for _, m := range s.Leader.Members {
			to := c.Servers[m.Chunkserver]
			if to == nil || !to.leads() || !ready(c, s, m) {
				continue
			}
			if best.ID == 0 || leads[m.Chunkserver] < leads[best.Chunkserver] {
				best = m
			}
		}
		if best.ID != 0 {
			out[s.Record.ID] = best.ID
			leads[best.Chunkserver]++
		}
	}
	return out
}
