package sim

import (
	"time"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// nemesisMin is the shortest pause between two faults.
	nemesisMin = 20 * time.Millisecond
	// armMax is within how many changes of its disk a chunkserver crashes that is to.
	armMax = 60
	// cutMax is the longest that a partition lasts, pauseMax a stop of a process.
	cutMax   = 3 * time.Second
	pauseMax = 4 * time.Second
	skipMax  = 20 * time.Second
	slowMax  = 400 * time.Millisecond
	farMax   = 3 * time.Second
	flaps    = 8
	flapMax  = 250 * time.Millisecond
)

// nemesis does one fault after the other until the world is quiet.
func (w *world) nemesis() {
	for {
		w.Sleep(nemesisMin + time.Duration(w.dice.Int64N(int64(w.opts.nemesisMax-nemesisMin))))
		if w.quiet {
			return
		}
		w.fault()
	}
}

// some returns a chunkserver.
func (w *world) some() *node { return w.nodes[w.dice.IntN(len(w.nodes))] }

func (w *world) within(d time.Duration) time.Duration {
	return 1 + time.Duration(w.dice.Int64N(int64(d)))
}

func (w *world) fault() {
	n := w.some()
	w.stats.Faults++
	kind := w.dice.IntN(26)
	if w.opts.gentle && kind < 5 {
		return
	}
	switch kind {
	case 0, 1, 2: // at a write or sync
		if n.life != nil {
			n.life.crash = 1 + w.dice.IntN(armMax)
			w.say("chunkserver %d is to crash in %d changes", n.id, n.life.crash)
		}
	case 3:
		if n.life != nil {
			n.life.fall()
		}
	case 4:
		if w.dice.IntN(3) == 0 {
			w.say("power cut")
			w.stats.PowerCuts++
			for _, n := range w.nodes {
				if n.life != nil {
					n.life.fall()
				}
			}
		}
	case 5, 6, 7:
		w.partition(n)
	case 8:
		w.net.loss = float64(w.dice.IntN(30)) / 100
		w.net.dup = float64(w.dice.IntN(20)) / 100
		w.After(w.within(cutMax), func() { w.net.loss, w.net.dup = 0, 0 })
	case 9:
		w.net.far = w.within(farMax)
		w.After(w.within(cutMax), func() { w.net.far = 0 })
	case 10, 11:
		w.pause(n)
	case 12:
		n.skip(w.within(skipMax))
		w.stats.Skips++
	case 13:
		n.slow = w.within(slowMax)
		w.After(w.within(cutMax), func() { n.slow = w.opts.slow })
	case 14:
		w.forgets(w.sets[w.dice.IntN(len(w.sets))])
	case 15:
		w.wakes(w.sets[w.dice.IntN(len(w.sets))])
	case 16, 17, 18: // a leader that does not know what the others do
		for _, id := range w.sets[w.dice.IntN(len(w.sets))].where() {
			if l := w.nodes[id-1].life; l != nil && l.host != nil && w.leads(l) {
				w.say("chunkserver %d, a leader, is alone", id)
				w.isolate(l.node)
				break
			}
		}
	case 19:
		w.fill(n)
	case 20:
		w.compareReplicas(w.sets[w.dice.IntN(len(w.sets))])
	case 21, 22:
		w.duel(w.sets[w.dice.IntN(len(w.sets))])
	default:
		w.lead(n)
	}
}

// leads tells whether the chunkserver leads a copyset.
func (w *world) leads(l *life) bool {
	for _, s := range w.sets {
		if g := l.host.Group(s.id); g != nil && g.Leading() {
			return true
		}
	}
	return false
}

// trio returns a copyset's leader and two others of its chunkservers; ok is false when there is no leader.
func (w *world) trio(s *set) (lead, a, b *node, ok bool) {
	for _, id := range s.where() {
		n := w.nodes[id-1]
		switch {
		case lead == nil && n.life != nil && n.life.host != nil && n.life.host.Group(s.id) != nil && n.life.host.Group(s.id).Leading():
			lead = n
		case a == nil:
			a = n
		default:
			b = n
		}
	}
	return lead, a, b, lead != nil && a != nil && b != nil
}

// forgets has a follower crash and start again at once while another one, cut off from the leader, wants to lead: what
// the first has promised the leader is to hold.
func (w *world) forgets(s *set) {
	lead, a, b, ok := w.trio(s)
	if !ok {
		return
	}
	w.say("chunkserver %d is cut off from %d, %d will start again", b.id, lead.id, a.id)
	w.stats.Partitions++
	w.net.cut[lead.id][b.id], w.net.cut[b.id][lead.id] = true, true
	at := time.Second + w.within(cutMax/2)
	w.lull = w.Now + at
	w.After(at, func() {
		if a.life != nil && !w.quiet {
			a.life.fall()
			w.After(time.Millisecond, a.start)
		}
	})
	w.After(at+w.within(cutMax), func() { w.net.cut = [nodesMax + 1][nodesMax + 1]bool{} })
}

// wakes stops the followers of a leader, which is cut off when they go on.
func (w *world) wakes(s *set) {
	lead, a, b, ok := w.trio(s)
	if !ok || a.life == nil || b.life == nil {
		return
	}
	w.say("chunkservers %d and %d are stopped together", a.id, b.id)
	d := w.within(pauseMax / 2)
	for _, l := range []*life{a.life, b.life} {
		w.stats.Pauses++
		l.paused = true
		w.After(d+w.within(latency), func() { l.paused = false })
	}
	w.After(d+w.within(4*latency), func() { w.isolate(lead) })
}

// isolate cuts a chunkserver off from the others, but not from the clients, for a while.
func (w *world) isolate(n *node) {
	if w.quiet {
		return
	}
	w.stats.Partitions++
	for other := 1; other <= len(w.nodes); other++ {
		w.net.cut[n.id][other], w.net.cut[other][n.id] = true, true
	}
	w.After(w.within(cutMax), func() { w.net.cut = [nodesMax + 1][nodesMax + 1]bool{} })
}

// partition cuts links for a while: of one chunkserver, of a pair, one way only, or again and again.
func (w *world) partition(n *node) {
	w.stats.Partitions++
	before := w.net.cut
	a := int(n.id)
	b := w.dice.IntN(len(w.nodes) + 1)
	kind := w.dice.IntN(6)
	cut := func() {
		for other := range len(w.nodes) + 1 {
			switch kind {
			case 0, 1: // alone; 1: the clients still reach it
				if kind == 0 || other != outside {
					w.net.cut[a][other], w.net.cut[other][a] = true, true
				}
			case 2:
				w.net.cut[a][other] = true
			case 3:
				w.net.cut[other][a] = true
			}
		}
		if kind >= 4 && a != b {
			w.net.cut[a][b] = true
			w.net.cut[b][a] = kind == 4
		}
	}
	w.say("partition %d of chunkserver %d", kind, n.id)
	cut()
	if w.dice.IntN(4) > 0 {
		w.After(w.within(cutMax), func() { w.net.cut = [nodesMax + 1][nodesMax + 1]bool{} })
		return
	}
	at := time.Duration(0)
	for i := range flaps {
		at += w.within(flapMax)
		w.After(at, func() {
			if w.quiet {
				return
			}
			if w.net.cut = before; i%2 == 1 && i < flaps-1 {
				cut()
			}
		})
	}
}

// pause stops a process and lets it go on later, as SIGSTOP and SIGCONT do.
func (w *world) pause(n *node) {
	l := n.life
	if l == nil || l.paused {
		return
	}
	w.stats.Pauses++
	w.say("chunkserver %d is stopped", n.id)
	l.paused = true
	w.After(w.within(pauseMax), func() {
		w.say("chunkserver %d goes on", n.id)
		l.paused = false
	})
}

// lead moves the leadership of a copyset.
func (w *world) lead(n *node) {
	if n.life == nil || n.life.host == nil {
		return
	}
	l := n.life
	s := w.sets[w.dice.IntN(len(w.sets))]
	kind := w.dice.IntN(2)
	var to layout.PeerID
	for i, p := range sortedPeers(s.members) {
		if i == 0 || w.dice.IntN(2) == 0 {
			to = p
		}
	}
	w.Spawn(l, "lead", func() {
		g := l.host.Group(s.id)
		if g == nil {
			return
		}
		w.stats.Transfers++
		switch kind { // an error means that it does not lead, or that the other can not
		case 0:
			if w.dice.IntN(2) == 0 { // it does not hear who leads now
				w.After(w.within(4*latency), func() { w.isolate(n) })
			}
			_ = g.TransferLeader(w.ctx, to)
		default:
			_ = g.Yield(w.ctx)
		}
	})
}
