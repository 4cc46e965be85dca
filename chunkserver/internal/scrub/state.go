package scrub

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// findingsMax bounds the findings that are remembered.
	findingsMax = 100
	// badMax bounds the blocks that are remembered as not repaired; others are met again by the next pass.
	badMax = 1000
)

// Place is a block of a copyset. The zero Place is before all others.
type Place struct {
	Copyset layout.CopysetID `json:"copyset"`
	Volume  layout.VolumeID  `json:"volume"`
	Chunk   uint32           `json:"chunk"`
	Block   uint32           `json:"block"`
	// Version is the newest version of the volume that has the block, if the content of now does not own it; else 0.
	Version uint64 `json:"version,omitempty"`
}

func placeOf(e *blockstore.ChecksumError) Place {
	return Place{e.Copyset, e.Chunk.Volume, e.Chunk.Index, e.Block, e.Version}
}

func (p Place) chunk() layout.ChunkID { return layout.ChunkID{Volume: p.Volume, Index: p.Chunk} }

// compareChunk orders places by copyset and chunk.
func (p Place) compareChunk(o Place) int {
	return cmp.Or(cmp.Compare(p.Copyset, o.Copyset), cmp.Compare(p.Volume, o.Volume), cmp.Compare(p.Chunk, o.Chunk))
}

func (p Place) String() string {
	s := fmt.Sprintf("copyset %d, chunk %v, block %d", p.Copyset, p.chunk(), p.Block)
	if p.Version != 0 {
		s += fmt.Sprintf(" of version %d", p.Version)
	}
	return s
}

// Tally counts the blocks of one pass.
type Tally struct {
	// Verified were read, Damaged of them did not fit their checksums or could not be read. Of those Repaired got a good
	// copy, or were overwritten or freed meanwhile; Unrepairable did not.
	Verified     int64 `json:"verified_blocks"`
	Damaged      int64 `json:"damaged_blocks"`
	Repaired     int64 `json:"repaired_blocks"`
	Unrepairable int64 `json:"unrepairable_blocks"`
	// Skipped is the number of chunks whose extent map could not be read.
	Skipped int64 `json:"skipped_chunks"`
}

// Finding is a damaged block.
type Finding struct {
	Place
	Time     time.Time `json:"time"`
	Repaired bool      `json:"repaired"`
	// Pass is the one that met it last, Problem what was wrong with it, and Error why it was not repaired.
	Pass    uint64 `json:"pass"`
	Problem string `json:"problem"`
	Error   string `json:"error"`
}

// State is what a restart keeps. Times are zero when it never happened.
type State struct {
	// Pass numbers the present pass, or the last one when it does not run. Asked says that somebody wanted it now.
	Pass    uint64    `json:"pass"`
	Running bool      `json:"running"`
	Asked   bool      `json:"asked"`
	Began   time.Time `json:"began"`
	// At is where the pass goes on.
	At    Place `json:"at"`
	Tally Tally `json:"tally"`
	// LastPass is the number of the last whole pass, Ended when it ended and Last what it counted.
	LastPass uint64    `json:"last_pass"`
	Ended    time.Time `json:"last_ended"`
	Last     Tally     `json:"last"`
	// Findings are the latest, oldest first; Bad are the blocks that are damaged still, those first whose repair is to be tried next.
	Findings []Finding `json:"findings"`
	Bad      []Finding `json:"unrepairable"`
}

func parse(b []byte) (State, error) {
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		return State{}, fmt.Errorf("scrub: state: %w", err)
	}
	return st, nil
}

func (st *State) encode() []byte {
	b, err := json.Marshal(st)
	if err != nil {
		panic("scrub: " + err.Error()) // it has no value that JSON can not say
	}
	return b
}

// clone returns a copy that shares nothing with st.
func (st *State) clone() State {
	c := *st
	c.Findings, c.Bad = slices.Clone(st.Findings), slices.Clone(st.Bad)
	return c
}

// begin starts a pass.
func (st *State) begin(now time.Time, asked bool) {
	st.Pass++
	st.Running, st.Asked, st.Began = true, asked, now
	st.At, st.Tally = Place{}, Tally{}
}

// end ends the pass. What it did not meet any more as damaged is good or gone, unless it lies in a chunk that was skipped.
func (st *State) end(now time.Time) {
	st.Running, st.At = false, Place{}
	st.LastPass, st.Ended, st.Last = st.Pass, now, st.Tally
	if st.Tally.Skipped == 0 {
		st.Bad = slices.DeleteFunc(st.Bad, func(f Finding) bool { return f.Pass < st.Pass })
	}
}

// note remembers a finding.
func (st *State) note(f Finding) {
	if len(st.Findings) >= findingsMax {
		st.Findings = slices.Delete(st.Findings, 0, len(st.Findings)-findingsMax+1)
	}
	st.Findings = append(st.Findings, f)
	st.forget(f.Place)
	if !f.Repaired && len(st.Bad) < badMax {
		st.Bad = append(st.Bad, f)
	}
}

// forget takes a block out of those that are damaged.
func (st *State) forget(p Place) {
	st.Bad = slices.DeleteFunc(st.Bad, func(f Finding) bool { return f.Place == p })
}

// later has a damaged block tried again behind all others.
func (st *State) later(p Place) {
	if i := slices.IndexFunc(st.Bad, func(f Finding) bool { return f.Place == p }); i >= 0 {
		f := st.Bad[i]
		st.Bad = append(slices.Delete(st.Bad, i, i+1), f)
	}
}

// mended takes a block out of those that are damaged, because it is good or gone.
func (st *State) mended(p Place) {
	st.forget(p)
	for i := range st.Findings {
		if f := &st.Findings[i]; f.Place == p {
			f.Repaired, f.Error = true, ""
		}
	}
}
