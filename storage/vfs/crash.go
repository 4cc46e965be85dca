package vfs

import (
	"math/rand/v2"
	"slices"
)

// Crash returns the file system that a power cut at this moment might leave behind, as rng chooses: every synced byte
// and name is there, and of the rest any subset, torn at SectorSize (see the package comment). With a nil rng
// everything unsynced is lost. The receiver stays as it is, so goroutines that still use it do no harm, and it can
// crash again in another way. Locks are not held in the new file system. The same state and seed give the same result.
func (m *Mem) Crash(rng *rand.Rand) *Mem {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := crasher{rng: rng, made: map[*memNode]*memNode{}, out: NewMem()}
	c.style = c.pickStyle()
	c.uniform = rng == nil || rng.IntN(2) == 0
	c.chooseTxs(m.mu.txs)
	c.out.mu.capacity = m.mu.capacity
	c.out.mu.root = c.build(m.mu.root)
	return c.out
}

// crashStyle is how the survivors of a run of changes are chosen.
type crashStyle uint8

const (
	loseAll  crashStyle = iota // nothing survives
	keepAll                    // everything does
	prefix                     // the oldest changes survive, the one behind them is torn
	subset                     // each change survives as a whole or not
	sectors                    // each sector of each change for itself
	styles   = 5
	loseHalf = 2 // one in two changes, sectors or names is lost
)

type crasher struct {
	rng     *rand.Rand
	style   crashStyle
	uniform bool // all files and directories have the same style
	kept    map[*memTx]bool
	made    map[*memNode]*memNode
	out     *Mem
}

func (c *crasher) pickStyle() crashStyle {
	if c.rng == nil {
		return loseAll
	}
	return crashStyle(c.rng.IntN(styles))
}

func (c *crasher) styleOfNext() crashStyle {
	if c.uniform {
		return c.style
	}
	return c.pickStyle()
}

// survivors returns for n changes in order which of them survive. torn is the one, or -1, of which single sectors do.
func (c *crasher) survivors(style crashStyle, n int) (keep []bool, torn int) {
	keep, torn = make([]bool, n), -1
	cut := n
	if style == prefix {
		if cut = c.rng.IntN(n + 1); cut < n {
			torn = cut
			keep[cut] = true
		}
	}
	for i := range keep {
		switch style {
		case keepAll, sectors:
			keep[i] = true
		case prefix:
			keep[i] = keep[i] || i < cut
		case subset:
			keep[i] = c.rng.IntN(loseHalf) == 0
		}
	}
	return keep, torn
}

// chooseTxs decides over the unsynced directory operations. One that survives takes the earlier ones on the same file
// with it: a file is never seen under two names.
func (c *crasher) chooseTxs(txs []*memTx) {
	c.kept = make(map[*memTx]bool, len(txs))
	style := c.styleOfNext()
	if style == sectors {
		style = subset
	}
	keep, torn := c.survivors(style, len(txs))
	later := map[*memNode]bool{}
	for i := len(txs) - 1; i >= 0; i-- {
		tx := txs[i]
		if keep[i] && i != torn || later[tx.node] {
			c.kept[tx] = true
			later[tx.node] = true
		}
	}
}

// build returns the crashed form of n and of all below it.
func (c *crasher) build(n *memNode) *memNode {
	if made := c.made[n]; made != nil {
		return made
	}
	if !n.isDir {
		made := &memNode{memData: c.crashData(&n.memData)}
		c.made[n] = made
		return made
	}
	names := make(map[string]*memNode, len(n.durable))
	for name, child := range n.durable {
		names[name] = child
	}
	for _, e := range n.pending {
		if e.tx.done || c.kept[e.tx] {
			e.apply(names)
		}
	}
	made := newMemDir()
	c.made[n] = made
	for _, name := range sortedNames(names) {
		child := c.build(names[name])
		made.children[name], made.durable[name] = child, child
		if child.links++; child.links == 1 {
			c.out.mu.used += int64(len(child.pages))
		}
	}
	return made
}

// crashData returns the content that a file has after the crash, all of it durable.
func (c *crasher) crashData(d *memData) memData {
	out := newMemData()
	for i, p := range d.stable {
		out.pages[i] = p
	}
	out.size = d.stableSize
	style := c.styleOfNext()
	keep, torn := c.survivors(style, len(d.changes))
	for i, ch := range d.changes {
		if ch.resized && keep[i] && (style != sectors && i != torn || c.rng.IntN(loseHalf) == 0) {
			out.size = ch.size
		}
	}
	touched := make([]int64, 0, len(d.touched))
	for i := range d.touched {
		touched = append(touched, i)
	}
	slices.Sort(touched)
	for _, i := range touched {
		c.crashPage(d, &out, i, keep, func(change int32) bool {
			return style != sectors && int(change) != torn || c.rng.IntN(loseHalf) == 0
		})
	}
	out.cut()
	for i, p := range out.pages {
		out.stable[i] = p
	}
	out.stableSize = out.size
	return out
}

// crashPage gives each sector of page i the content that it had after the last surviving change of it.
func (c *crasher) crashPage(d, out *memData, i int64, keep []bool, sector func(change int32) bool) {
	var p *page
	for s := int64(0); s < memPage; s += SectorSize {
		at, last := i*memPage+s, -1
		for k, change := range d.touched[i] {
			if keep[change] && sector(change) {
				last = k
			}
		}
		if last < 0 {
			continue
		}
		if p == nil {
			p = &page{frozen: true}
			if old := d.stable[i]; old != nil {
				p.b = old.b
			}
		}
		for _, change := range d.touched[i][:last+1] {
			d.changes[change].replay(p.b[s:s+SectorSize], at)
		}
	}
	if p != nil {
		out.pages[i] = p
	}
}

// replay applies the change to the bytes of a file that start at offset at.
func (ch *memChange) replay(b []byte, at int64) {
	lo, hi := max(ch.off, at), min(ch.end, at+int64(len(b)))
	switch {
	case lo >= hi:
	case ch.data == nil:
		clear(b[lo-at : hi-at])
	default:
		copy(b[lo-at:hi-at], ch.data[lo-ch.off:])
	}
}

// cut drops what lies behind the size, which a file system never shows.
func (d *memData) cut() {
	for i, p := range d.pages {
		switch lo := i * memPage; {
		case p == nil:
		case lo >= d.size:
			d.pages[i] = nil
		case d.size < lo+memPage:
			q := &page{frozen: true, b: p.b}
			clear(q.b[d.size-lo:])
			d.pages[i] = q
		}
	}
}
