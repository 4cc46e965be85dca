package schedule

import (
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Role is what a member does in its copyset.
type Role uint8

// The roles.
const (
	Voter Role = iota
	Learner
)

func (r Role) String() string {
	if r == Learner {
		return "learner"
	}
	return "voter"
}

// Peer is a member of a copyset as its record holds it.
type Peer struct {
	ID          layout.PeerID        `json:"id"`
	Chunkserver layout.ChunkserverID `json:"chunkserver"`
	Role        Role                 `json:"role,omitempty"`
	// Seen: the chunkserver reported the replica once. From then on it is not founded again: a replica that is gone lost
	// its vote, and its peer must not vote anew.
	Seen bool `json:"seen,omitempty"`
}

// Kinds of operations.
const (
	KindReplace = "replace-peer"
	KindDrain   = "drain"
	KindRecover = "recover"
	KindBalance = "balance"
)

// Operation replaces one peer by another.
type Operation struct {
	// Kind says why: one of the Kind constants.
	Kind           string               `json:"kind"`
	OldPeer        layout.PeerID        `json:"old_peer"`
	OldChunkserver layout.ChunkserverID `json:"old_chunkserver"`
	NewPeer        layout.PeerID        `json:"new_peer"`
	NewChunkserver layout.ChunkserverID `json:"new_chunkserver"`
	// NewSeen: the new replica was reported once; if it is gone after that the operation is given up.
	NewSeen bool `json:"new_seen,omitempty"`
	// Abort: the operation is given up; what it added is taken back.
	Abort bool `json:"abort,omitempty"`
	// Error says why it was given up.
	Error string `json:"error,omitempty"`
	// StartedUnixMs is for people to read.
	StartedUnixMs int64 `json:"started_unix_ms"`
}

// Same tells whether the new peer comes to the chunkserver of the old one.
func (o *Operation) Same() bool { return o.OldChunkserver == o.NewChunkserver }

// Record is what is stored of a copyset. A Record is not changed after it was made: Advance makes a new one.
type Record struct {
	ID   layout.CopysetID `json:"id"`
	Pool string           `json:"pool"`
	// ConfVersion is that of Peers, 0 until a leader reported.
	ConfVersion uint64 `json:"conf_version"`
	Peers       []Peer `json:"peers"`
	// Founded: a leader reported, so the copyset lives on its own.
	Founded bool `json:"founded,omitempty"`
	// FoundingVersion is the ConfVersion that the first leader reported: while it holds, the membership is the founding one.
	FoundingVersion uint64 `json:"founding_version,omitempty"`
	// Removed are former peers whose replicas are to be given back, at most removedMax, oldest first.
	Removed []Peer     `json:"removed,omitempty"`
	Op      *Operation `json:"op,omitempty"`
}

// removedMax bounds Record.Removed: a chunkserver that never comes back keeps its entry until others push it out.
const removedMax = 16

// clone returns a copy that can be changed.
func (r *Record) clone() *Record {
	c := *r
	c.Peers, c.Removed = slices.Clone(r.Peers), slices.Clone(r.Removed)
	if r.Op != nil {
		op := *r.Op
		c.Op = &op
	}
	return &c
}

// On returns the member on a chunkserver.
func (r *Record) On(cs layout.ChunkserverID) (Peer, bool) {
	for _, p := range r.Peers {
		if p.Chunkserver == cs {
			return p, true
		}
	}
	return Peer{}, false
}

// Peer returns the member with an id.
func (r *Record) Peer(id layout.PeerID) (Peer, bool) {
	for _, p := range r.Peers {
		if p.ID == id {
			return p, true
		}
	}
	return Peer{}, false
}

// Holds tells whether a chunkserver has or is about to have a replica of the copyset.
func (r *Record) Holds(cs layout.ChunkserverID) bool {
	if _, ok := r.On(cs); ok {
		return true
	}
	return r.Op != nil && r.Op.NewChunkserver == cs
}

// Member is a member as a leader reports it.
type Member struct {
	ID          layout.PeerID
	Chunkserver layout.ChunkserverID
	Role        Role
	// Match is the index up to which the member's log equals the leader's.
	Match uint64
}

// Report is what one chunkserver last said of one copyset.
type Report struct {
	Peer        layout.PeerID
	Leader      bool
	LeaderPeer  layout.PeerID
	Term        uint64
	Applied     uint64
	Commit      uint64
	ConfVersion uint64
	Members     []Member
	// SnapshotPeer is the peer to which an image is being sent, 0 for none.
	SnapshotPeer                layout.PeerID
	SnapshotDone, SnapshotTotal uint64
	// Error says why the replica does not work, empty when it does.
	Error string
}

// Member returns the reported member with an id.
func (r *Report) Member(id layout.PeerID) (Member, bool) {
	for _, m := range r.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Server is a chunkserver.
type Server struct {
	ID     layout.ChunkserverID
	Pool   string
	Zone   string
	Server string
	// Up: its heartbeats come.
	Up bool
	// Down is for how long they have not come, 0 while Up.
	Down     time.Duration
	Draining bool
	// DiskError is empty while its disk works.
	DiskError string
	// Slow: its disk is much slower than those of the others.
	Slow           bool
	Disk           Disk
	Capacity, Used uint64
}

// usable tells whether new replicas may go to s.
func (s *Server) usable() bool {
	return s.leads() && !s.nearlyFull()
}

// leads tells whether leaders may move to s.
func (s *Server) leads() bool {
	return s.Up && !s.Draining && s.DiskError == "" && !s.Slow
}

// fullShare: a disk that is used beyond this share takes no new replicas, in percent.
const fullShare = 85

func (s *Server) nearlyFull() bool {
	return s.Capacity > 0 && s.Used >= s.Capacity/100*fullShare
}

// State is one copyset with all that is known about it.
type State struct {
	Record *Record
	// Leader is the report of the leader, nil while no chunkserver that is up leads.
	Leader *Report
	// LeaderOn is its chunkserver.
	LeaderOn layout.ChunkserverID
	// Reports are those of chunkservers that are up.
	Reports map[layout.ChunkserverID]*Report
	// Missing is for how long a chunkserver that is up has been reporting without the copyset, although it had it.
	Missing map[layout.ChunkserverID]time.Duration
	// Failing is for how long a chunkserver that is up has been reporting an error of its replica. Some errors pass.
	Failing map[layout.ChunkserverID]time.Duration
}

// Cluster is the input of the decisions about more than one copyset.
type Cluster struct {
	Servers  map[layout.ChunkserverID]*Server
	Copysets []*State // by id
}

// live tells whether a member's replica works as far as is known.
func (s *State) live(c *Cluster, p Peer) bool {
	srv := c.Servers[p.Chunkserver]
	rep := s.Reports[p.Chunkserver]
	return srv != nil && srv.Up && rep != nil && rep.Peer == p.ID && rep.Error == ""
}

// Voters counts the voters and those of them whose replicas work.
func (s *State) Voters(c *Cluster) (voters, live int) {
	for _, p := range s.Record.Peers {
		if p.Role != Voter {
			continue
		}
		voters++
		if s.live(c, p) {
			live++
		}
	}
	return voters, live
}

// Quorum tells whether the copyset serves: a majority of its voters works and one of them leads.
func (s *State) Quorum(c *Cluster) bool {
	voters, live := s.Voters(c)
	return s.Leader != nil && live > voters/2
}

// founding tells whether the membership is still the one with which the copyset began. Only then may a replica that was
// never reported be made as a founding one.
func (r *Record) founding() bool { return !r.Founded || r.ConfVersion == r.FoundingVersion }
