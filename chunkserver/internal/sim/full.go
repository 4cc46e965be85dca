package sim

import "github.com/ashlar-storage/ashlar/storage/layout"

const (
	// reserve and spaceMargin are the store's reserve and the host's margin above it, in bytes.
	reserve     = 256 << 10
	spaceMargin = 64 << 10
	// roomMax is the most that a full disk has left, in bytes: more than the reserve, so that some are only nearly full.
	roomMax = 512 << 10
	// fullMax is the longest that a disk is full.
	fullMax = 2 * cutMax
)

// fill fills the disk of a chunkserver, or those of all, for a while.
func (w *world) fill(n *node) {
	if !w.opts.tight {
		return
	}
	some := []*node{n}
	if w.dice.IntN(3) == 0 {
		some = w.nodes
	}
	for _, n := range some {
		left := w.dice.Int64N(roomMax)
		if w.dice.IntN(3) == 0 {
			left = 0
		}
		n.squeeze(left)
	}
	w.After(w.within(fullMax), func() {
		for _, n := range some {
			n.room()
		}
	})
}

// squeeze leaves the chunkserver's disk that much room, with what is free within the data file.
func (n *node) squeeze(left int64) {
	n.w.stats.Full++
	n.full = true
	n.w.say("chunkserver %d: its disk has %d bytes left", n.id, left)
	space, err := n.mem.Space("/")
	if err != nil {
		n.w.find("chunkserver %d: %v", n.id, err)
		return
	}
	n.mem.SetCapacity(space.Total - space.Free + left)
	l := n.life
	if l == nil || l.host == nil {
		return
	}
	n.w.Spawn(l, "ballast", func() {
		for piece := int64(ballastPiece); piece >= layout.BlockSize && n.full; {
			if l.store.Usage().Free < left+piece {
				piece /= 2
				continue
			}
			runs, err := l.store.StoreBlocks(make([]byte, piece))
			l.ballast = append(l.ballast, runs...)
			if err != nil {
				piece /= 2
			}
		}
	})
}

// ballastPiece is a power of two and the most that is taken at a time, in bytes.
const ballastPiece = 128 << 10

// room gives the chunkserver's disk room again.
func (n *node) room() {
	n.mem.SetCapacity(capacity)
	n.full = false
	if l := n.life; l != nil && len(l.ballast) > 0 {
		l.store.ReleaseBlocks(l.ballast)
		l.ballast = nil
	}
}

// capacity is that of a disk that is not full, in bytes.
const capacity = 1 << 40
