package quiet

import (
	"slices"
	"sync"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Incarnation names what a process vouches for; never 0.
type Incarnation uint64

// Pulse is the signs of life between this process and the others. It may be used by several goroutines.
type Pulse struct {
	missesMax int
	mu        struct {
		sync.Mutex
		own   Incarnation
		heard map[layout.ChunkserverID]*sign
	}
}

// sign is what was heard of a process.
type sign struct {
	incarnation Incarnation
	missed      int // periods since
	lost        bool
}

// NewPulse returns the pulse of a process that has just started. A period is as long as that many ticks, and a process is
// lost when nothing was heard of it for whole periods of electionTicks ticks.
func NewPulse(own Incarnation, periodTicks, electionTicks int) *Pulse {
	// The first period may have begun before the last sign.
	p := &Pulse{missesMax: (electionTicks+periodTicks-1)/periodTicks + 1}
	p.mu.own = max(own, 1)
	p.mu.heard = map[layout.ChunkserverID]*sign{}
	return p
}

// Own returns the incarnation to tell the others.
func (p *Pulse) Own() Incarnation {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.own
}

// Renew begins another incarnation: this process does not vouch any more for what it vouched for.
func (p *Pulse) Renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.own = max(p.mu.own+1, 1)
}

// Heard notes a beat. It returns true when the process was known in another incarnation.
func (p *Pulse) Heard(cs layout.ChunkserverID, in Incarnation) (renewed bool) {
	if in == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.heard[cs]
	if s == nil {
		s = &sign{incarnation: in}
		p.mu.heard[cs] = s
	}
	renewed = s.incarnation != in
	*s = sign{incarnation: in}
	return renewed
}

// Trust tells whether the process is heard, in that incarnation. If so, it counts as a sign of life: who trusts has just got a
// message of it.
func (p *Pulse) Trust(cs layout.ChunkserverID, in Incarnation) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.heard[cs]
	if s == nil || s.lost || s.incarnation != in {
		return false
	}
	s.missed = 0
	return true
}

// Alive tells whether the process is heard.
func (p *Pulse) Alive(cs layout.ChunkserverID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.heard[cs]
	return s != nil && !s.lost
}

// Tick ends a period and returns the processes that are lost now and were not before. Periods that a process missed because
// it stood still are not made up: it gives the others a whole timeout from when it goes on.
func (p *Pulse) Tick() (lost []layout.ChunkserverID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for cs, s := range p.mu.heard {
		if s.lost {
			continue
		}
		if s.missed++; s.missed >= p.missesMax {
			s.lost = true
			lost = append(lost, cs)
		}
	}
	slices.Sort(lost)
	return lost
}

// Delay is after how many ticks a follower campaigns that has lost its leader's process: from 1 on, spread over an election
// timeout by the copyset, and then by rank, which tells the followers of one group apart.
func Delay(id layout.CopysetID, rank, electionTicks int) int {
	spread := uint64(id) * 0x9e3779b97f4a7c15 >> 32
	return 1 + int(spread%uint64(electionTicks)) + rank*max(electionTicks/2, 1)
}
