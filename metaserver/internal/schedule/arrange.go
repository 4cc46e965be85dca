package schedule

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Arrangement says how copysets are laid over chunkservers.
type Arrangement struct {
	// Replicas is the number of members of a copyset, each in a zone of its own.
	Replicas int
	// PerServer is how many copysets a chunkserver of average capacity should have.
	PerServer int
}

// floatShare: a chunkserver may get more copysets than it should have, by this share in percent, so that one that came
// later finds partners.
const floatShare = 20

// lackShare: copysets are made only when a chunkserver lacks more than this share of what it should have, in percent, so
// that small changes of capacity do not add copysets for ever.
const lackShare = 10

// capacityShare bounds how much more or fewer copysets a chunkserver has than the average one for its capacity.
const capacityShare = 4

// slot is a chunkserver while copysets are arranged.
type slot struct {
	id       layout.ChunkserverID
	zone     string
	want     int
	have     int
	partners map[layout.ChunkserverID]int
}

// need is the share of its copysets that a slot lacks; negative when it has more than it should.
func (s *slot) need() float64 { return float64(s.want-s.have) / float64(max(s.want, 1)) }

// Arrange returns new copysets of a pool, each a list of chunkservers in different zones, until every chunkserver that
// can take replicas has what it should have for its capacity. As in a shuffled zip across zones each round takes one
// chunkserver per zone, but of the zones and chunkservers that lack the most, and prefers those that have not met yet, so
// that the scatter width grows. The result depends on c, a and rnd only.
func Arrange(c *Cluster, pool string, a Arrangement, rnd *rand.Rand) [][]layout.ChunkserverID {
	slots := slotsOf(c, pool, a)
	if !slices.ContainsFunc(slots, func(s *slot) bool { return s.have*100 < s.want*(100-lackShare) }) {
		return nil
	}
	var out [][]layout.ChunkserverID
	// Every round lowers the need of the slot that it starts from, so the rounds are bounded by the sum of needs.
	for range len(slots) * a.PerServer * capacityShare {
		rnd.Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
		slices.SortStableFunc(slots, func(a, b *slot) int { return cmp.Compare(b.need(), a.need()) })
		if len(slots) == 0 || slots[0].have >= slots[0].want {
			break
		}
		set := pick(slots, a.Replicas)
		if set == nil {
			break
		}
		var ids []layout.ChunkserverID
		for _, s := range set {
			s.have++
			for _, q := range set {
				if q != s {
					s.partners[q.id]++
				}
			}
			ids = append(ids, s.id)
		}
		out = append(out, ids)
	}
	return out
}

// pick returns the first slot and the best partners for it in other zones, nil when there are too few.
func pick(slots []*slot, replicas int) []*slot {
	set := []*slot{slots[0]}
	for len(set) < replicas {
		var best *slot
		for _, s := range slots {
			full := s.have*100 >= s.want*(100+floatShare)
			if full || slices.ContainsFunc(set, func(q *slot) bool { return q.zone == s.zone }) {
				continue
			}
			if best == nil || better(s, best, set) {
				best = s
			}
		}
		if best == nil {
			return nil
		}
		set = append(set, best)
	}
	return set
}

// better tells whether s is a better partner for the set than t: it met the set less often, then it lacks more. The
// latter counts first when the two differ by a tenth of what they should have.
func better(s, t *slot, set []*slot) bool {
	if d := s.need() - t.need(); d > 0.1 || d < -0.1 {
		return d > 0
	}
	met := func(x *slot) (n int) {
		for _, q := range set {
			n += q.partners[x.id]
		}
		return n
	}
	if a, b := met(s), met(t); a != b {
		return a < b
	}
	return s.need() > t.need()
}

// slotsOf returns the chunkservers of a pool that can take replicas, by id.
func slotsOf(c *Cluster, pool string, a Arrangement) []*slot {
	var in []*Server
	var sum, members float64
	for _, s := range sorted(c) {
		if s.Pool != pool || s.Draining {
			continue
		}
		// The average is that of all, so that it does not change when one is down for a while.
		members++
		sum += float64(max(s.Capacity, 1))
		if s.usable() {
			in = append(in, s)
		}
	}
	n := counts(c)
	slots := make([]*slot, 0, len(in))
	for _, s := range in {
		ratio := float64(max(s.Capacity, 1)) * members / sum
		ratio = min(max(ratio, 1.0/capacityShare), capacityShare)
		slots = append(slots, &slot{
			id: s.ID, zone: s.Zone, want: max(1, int(float64(a.PerServer)*ratio+0.5)), have: n[s.ID],
			partners: map[layout.ChunkserverID]int{},
		})
	}
	byID := map[layout.ChunkserverID]*slot{}
	for _, s := range slots {
		byID[s.id] = s
	}
	for _, s := range c.Copysets {
		for _, p := range s.Record.Peers {
			for _, q := range s.Record.Peers {
				if a := byID[p.Chunkserver]; a != nil && p.ID != q.ID {
					a.partners[q.Chunkserver]++
				}
			}
		}
	}
	return slots
}
