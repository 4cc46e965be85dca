// Package replicas compares what the replicas of a copyset hold. It is pure: digests in, a verdict out.
//
//	peer 1  index 900  sum A ─┐
//	peer 2  index 900  sum A ─┼─► the newest index that two members have a digest of ─► A has the majority: peer 3 is odd
//	peer 3  index 900  sum B ─┘
//
// A replica is odd only if a majority of the voters holds the same and it does not. Without such a majority replicas that
// differ are an alarm and nothing more: nobody can know which one is right.
package replicas

import (
	"slices"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Digest is what a replica held when it had applied Index. Digests of different formats are not comparable.
type Digest struct {
	Peer   layout.PeerID
	Index  uint64
	Format uint32
	Sum    [16]byte
}

// Verdict is what digests show.
type Verdict struct {
	// Index is where replicas were compared; 0: nowhere yet.
	Index uint64
	// Compared are the members that were, by id.
	Compared []layout.PeerID
	// Differ tells that not all of them hold the same.
	Differ bool
	// Odd are those that a majority of the voters disproves, by id.
	Odd []layout.PeerID
}

// Judge compares the digests of a copyset's members.
func Judge(voters []layout.PeerID, digests []Digest) Verdict {
	var v Verdict
	all := newest(digests)
	if len(all) < 2 {
		return v
	}
	v.Index = all[0].Index
	count := map[[16]byte]int{}
	for _, d := range all {
		v.Compared = append(v.Compared, d.Peer)
		v.Differ = v.Differ || d.Sum != all[0].Sum
		if slices.Contains(voters, d.Peer) {
			count[d.Sum]++
		}
	}
	slices.Sort(v.Compared)
	if !v.Differ {
		return v
	}
	for sum, n := range count {
		if n <= len(voters)/2 {
			continue
		}
		for _, d := range all {
			if d.Sum != sum {
				v.Odd = append(v.Odd, d.Peer)
			}
		}
	}
	slices.Sort(v.Odd)
	return v
}

// newest returns the digests of the highest index that two or more have in one format.
func newest(digests []Digest) []Digest {
	type place struct {
		index  uint64
		format uint32
	}
	at := map[place][]Digest{}
	var best []Digest
	for _, d := range digests {
		p := place{d.Index, d.Format}
		at[p] = append(at[p], d)
	}
	for p, all := range at {
		if len(all) >= 2 && (best == nil || p.index > best[0].Index || p.index == best[0].Index && len(all) > len(best)) {
			best = all
		}
	}
	return best
}
