package copyset

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// InitiatorsMax bounds the (volume, initiator) pairs whose fences a copyset keeps.
const InitiatorsMax = 1 << 20

// Medium is where the data of a copyset lies. Every method does all of its work or, with an error, nothing.
type Medium interface {
	// Write writes data at off of the chunk; crcs are those of the whole blocks, nil: to be computed.
	Write(ch layout.ChunkID, off uint32, data []byte, crcs []uint32) error
	// Read fills dst.
	Read(ch layout.ChunkID, off uint32, dst []byte) error
	Discard(ch layout.ChunkID, off, length uint32) error
	WriteZeroes(ch layout.ChunkID, off, length uint32) error
	DeleteVolume(v layout.VolumeID) error
}

// State is the replicated state of one copyset. It is owned by one goroutine.
type State struct {
	index, term uint64
	members     *Members
	volumes     map[layout.VolumeID]*volume
	pairs       int

	view  *View
	stale map[layout.VolumeID]struct{} // volumes that view does not show as they are
	crcs  []uint32                     // space for Decode
	buf   []byte                       // space for compare and write
}

type volume struct {
	access     layout.AccessGeneration
	deleted    bool
	initiators map[layout.InitiatorID]*initiator
}

type initiator struct {
	fence layout.Fence
	win   window
	swaps []swap
}

// New returns the state before the first entry, of a copyset whose founding entry has the given index and term; a
// peer that joins starts with nil members and 0, 0.
func New(members *Members, index, term uint64) *State {
	if members == nil {
		members = &Members{Conf: raftpb.EnsureConfState(nil), Chunkservers: map[layout.PeerID]layout.ChunkserverID{}}
	}
	return &State{
		index: index, term: term, members: members,
		volumes: map[layout.VolumeID]*volume{}, stale: map[layout.VolumeID]struct{}{},
	}
}

// Applied returns the index and term of the last applied entry.
func (s *State) Applied() (index, term uint64) { return s.index, s.term }

// Members returns the membership. It is not changed; a change makes a new one.
func (s *State) Members() *Members { return s.members }

// Apply applies a normal entry, which must be the one behind the last. An error means that the entry was not applied:
// it is an error of the medium, or ErrVersion.
func (s *State) Apply(index, term uint64, data []byte, m Medium) (Result, error) {
	if index != s.index+1 {
		return Result{}, fmt.Errorf("copyset: entry %d behind %d", index, s.index)
	}
	var res Result
	if len(data) > 0 {
		var c Command
		switch err := c.Decode(data, s.crcs); {
		case errors.Is(err, ErrVersion):
			return Result{}, err
		case err != nil:
			res.Outcome = Outcome{Code: Invalid}
		case c.Op == OpDigest:
			res.Outcome, res.Digest = Outcome{Code: OK}, true
		default:
			out, err := s.run(&c, m)
			if err != nil {
				return Result{}, err
			}
			res.Outcome = out
		}
		if c.CRCs != nil {
			s.crcs = c.CRCs
		}
		res.Proposer, res.Proposal = c.Proposer, c.Proposal
	}
	s.index, s.term = index, term
	return res, nil
}

// ApplyChange applies a configuration change. It reports whether the change took effect; only then does raft's node
// get it too. An error (ErrVersion) means that the entry was not applied.
func (s *State) ApplyChange(index, term uint64, cc *raftpb.ConfChangeV2) (bool, error) {
	if index != s.index+1 {
		return false, fmt.Errorf("copyset: entry %d behind %d", index, s.index)
	}
	accepted, err := s.change(cc)
	if err != nil {
		return false, err
	}
	s.index, s.term = index, term
	return accepted, nil
}

func (s *State) change(cc *raftpb.ConfChangeV2) (bool, error) {
	var changes []MemberChange
	if cc.LeaveJoint() {
		if !s.members.Joint() {
			return false, nil
		}
	} else {
		c, err := decodeChange(cc.GetContext())
		if errors.Is(err, ErrVersion) {
			return false, err
		}
		if err != nil || c.Check(s.members) != nil {
			return false, nil //nolint:nilerr // every replica refuses a change that is not possible, and goes on
		}
		changes = c.Changes
	}
	conf, err := nextConf(s.members.Conf, cc)
	if err != nil {
		return false, nil //nolint:nilerr // refused, as above
	}
	s.members = s.members.next(conf, changes)
	return true, nil
}

// run does what the package comment says in "What an entry does".
func (s *State) run(c *Command, m Medium) (Outcome, error) {
	id := c.Chunk.Volume
	vol := s.volumes[id]
	switch {
	case vol != nil && vol.deleted:
		if c.Op == OpDeleteVolume {
			return Outcome{Code: OK}, nil
		}
		return Outcome{Code: StaleAccess, Access: layout.DeletedAccess}, nil
	case c.Op == OpDeleteVolume:
		return s.deleteVolume(id, m)
	case c.Op == OpRaiseAccess:
		v := s.volume(id)
		if c.Access > v.access {
			v.access = c.Access
			s.stale[id] = struct{}{}
		}
		return Outcome{Code: OK, Access: v.access}, nil
	}
	var ini *initiator
	if vol != nil {
		if ini = vol.initiators[c.Initiator]; ini != nil {
			if out, done := ini.known(c); done {
				if out.Code != StaleFence {
					s.raise(c) // the operation is an old one, its fence may be new
				}
				return out, nil
			}
		}
		if c.Access < vol.access {
			return Outcome{Code: StaleAccess, Access: vol.access}, nil
		}
	}
	if ini == nil && s.pairs >= InitiatorsMax {
		return Outcome{Code: Invalid}, nil
	}
	vol, ini = s.raise(c)
	if c.Op == OpRaise {
		return Outcome{Code: OK, Fence: ini.fence, Access: vol.access}, nil
	}
	return ini.mutate(c, m, s.space(int(c.Length)))
}

// known answers a command that the fence refuses or whose outcome is stored.
func (ini *initiator) known(c *Command) (Outcome, bool) {
	if c.Fence.Epoch == ini.fence.Epoch && c.Seq != 0 && c.Op != OpRaise {
		if out, ok := ini.win.lookup(c.Seq); ok {
			return out, true
		}
	}
	if c.Fence.Compare(ini.fence) < 0 {
		return Outcome{Code: StaleFence, Fence: ini.fence}, true
	}
	return Outcome{}, false
}

// raise makes the records that the command needs and raises what is newer in it.
func (s *State) raise(c *Command) (*volume, *initiator) {
	id := c.Chunk.Volume
	vol := s.volume(id)
	if c.Access > vol.access {
		vol.access = c.Access
		s.stale[id] = struct{}{}
	}
	ini := vol.initiators[c.Initiator]
	if ini == nil {
		ini = &initiator{}
		vol.initiators[c.Initiator] = ini
		s.pairs++
		s.stale[id] = struct{}{}
	}
	if c.Fence.Compare(ini.fence) > 0 {
		if c.Fence.Epoch > ini.fence.Epoch {
			ini.swaps = inherit(ini.swaps, ini.win.low)
			ini.win = window{}
		}
		ini.fence = c.Fence
		s.stale[id] = struct{}{}
	}
	return vol, ini
}

func (s *State) volume(id layout.VolumeID) *volume {
	v := s.volumes[id]
	if v == nil {
		v = &volume{initiators: map[layout.InitiatorID]*initiator{}}
		s.volumes[id] = v
		s.stale[id] = struct{}{}
	}
	return v
}

func (s *State) space(n int) []byte {
	if n > CompareMax {
		return nil
	}
	if s.buf == nil {
		s.buf = make([]byte, CompareMax)
	}
	return s.buf[:n]
}

func (s *State) deleteVolume(id layout.VolumeID, m Medium) (Outcome, error) {
	if err := m.DeleteVolume(id); err != nil {
		return Outcome{}, err
	}
	v := s.volume(id)
	s.pairs -= len(v.initiators)
	v.deleted, v.access, v.initiators = true, layout.DeletedAccess, nil
	s.stale[id] = struct{}{}
	return Outcome{Code: OK, Access: layout.DeletedAccess}, nil
}

// mutate runs a command whose fence is the current one. space is for what a compare and write reads.
func (ini *initiator) mutate(c *Command, m Medium, space []byte) (Outcome, error) {
	if c.LowWater > ini.win.low {
		ini.win.raise(c.LowWater)
		ini.swaps = acknowledged(ini.swaps, c.LowWater)
	}
	switch {
	case c.Seq < ini.win.low:
		return Outcome{Code: Forgotten}, nil
	case !ini.win.inside(c.Seq):
		return Outcome{Code: Invalid}, nil
	}
	out, err := Outcome{Code: OK}, error(nil)
	switch c.Op {
	case OpWrite:
		err = m.Write(c.Chunk, c.Offset, c.Payload, c.CRCs)
	case OpDiscard:
		err = m.Discard(c.Chunk, c.Offset, c.Length)
	case OpWriteZeroes:
		err = m.WriteZeroes(c.Chunk, c.Offset, c.Length)
	case OpCompareAndWrite:
		out, err = ini.compareAndWrite(c, m, space)
	}
	if err != nil {
		return Outcome{}, err
	}
	ini.win.store(c.Seq, out)
	return out, nil
}
