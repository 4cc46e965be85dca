package schedule

import "github.com/ashlar-storage/ashlar/storage/layout"

// leaderLag: a follower that is behind by more entries is not made leader.
const leaderLag = 64

// Move is a leader to move.
type Move struct {
	Copyset layout.CopysetID
	// To is the peer that is to lead.
	To layout.PeerID
}

// Leaders returns one leader to move, so that the leaders of a pool come to differ by one at most between chunkservers,
// or none. A chunkserver that drains should lead nothing; what a slow disk leads is for Evacuate, and one that has failed leads
// nothing. avoid tells which copysets moved lately.
func Leaders(c *Cluster, avoid func(layout.CopysetID) bool) (Move, bool) {
	leads := map[layout.ChunkserverID]int{}
	for _, s := range c.Copysets {
		if s.Leader != nil {
			leads[s.LeaderOn]++
		}
	}
	best, gain := Move{}, 1
	for _, s := range c.Copysets {
		from := c.Servers[s.LeaderOn]
		if s.Leader == nil || s.Record.Op != nil || from == nil || from.Slow || avoid(s.Record.ID) {
			continue
		}
		for _, m := range s.Leader.Members {
			to := c.Servers[m.Chunkserver]
			if to == nil || to == from || !to.leads() || !ready(c, s, m) {
				continue
			}
			g := leads[from.ID] - leads[to.ID]
			if from.Draining {
				g += len(c.Copysets) + 2
			}
			if g > gain {
				best, gain = Move{Copyset: s.Record.ID, To: m.ID}, g
			}
		}
	}
	return best, best.To != 0
}

// ready tells whether a member can take over at once.
func ready(c *Cluster, s *State, m Member) bool {
	return m.Role == Voter && m.Match+leaderLag >= s.Leader.Commit &&
		s.live(c, Peer{ID: m.ID, Chunkserver: m.Chunkserver})
}
