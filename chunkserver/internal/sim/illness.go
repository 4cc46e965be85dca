package sim

import (
	"errors"
	"strings"
	"syscall"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/history"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/liar"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// illness is what the disks of some chunkservers do wrong by themselves. Of those that damage blocks, which are repaired from
// other replicas, two of three may be ill, or all: then there are blocks without a good copy, and only safety is asked for.
type illness uint8

const (
	healthy illness = iota
	// flips: a bit of what is written to the data file is inverted.
	flips
	// losses: a write to the data file is not made, strays: it goes to another place.
	losses
	strays
	// readErrors: a read of the data file fails.
	readErrors
	// writeErrors and syncErrors: a write or a sync fails, once. The chunkserver's disk is not used any more then.
	writeErrors
	syncErrors
	// logFlips: a bit of what is written to the log is inverted, once.
	logFlips
	// indexFlips: a bit of each of some files of the index is inverted while the chunkserver is down, once.
	indexFlips
	illnesses
)

// repairable tells whether the damage is of blocks.
func (i illness) repairable() bool {
	return i == flips || i == losses || i == strays || i == readErrors
}

// How often a disk that is ill does it: once in so many operations.
const (
	oftenIll  = 12
	seldomIll = 120
)

// damages tells whether a disk does something wrong by itself in this world.
func (o *Options) damages() bool { return o.ill != healthy }

// ill tells whether the disk does it at this operation.
func (l *life) ill(every int) bool {
	w := l.node.w
	if w.quiet || !l.node.sick || !l.placed || l.node.disk.IntN(every) > 0 {
		return false
	}
	w.stats.Damages++
	return true
}

// damage is what a disk does wrong by itself.
func (l *life) damage(op vfs.Op) vfs.Fault {
	w, rng := l.node.w, l.node.disk
	blocks := op.Path == blocksFile
	switch w.opts.ill {
	case flips:
		if blocks && op.Kind == vfs.OpWriteAt && l.ill(oftenIll) {
			return vfs.Fault{Flip: []int64{rng.Int64N(8 * op.Length)}}
		}
	case readErrors:
		if blocks && op.Kind == vfs.OpReadAt && l.ill(oftenIll) {
			return vfs.Fault{Err: syscall.EIO}
		}
	case writeErrors:
		if op.Kind == vfs.OpWriteAt && !l.node.failed && l.ill(seldomIll) {
			l.node.failed = true
			return vfs.Fault{Err: syscall.EIO, Short: rng.IntN(int(op.Length) + 1)}
		}
	case syncErrors:
		if (op.Kind == vfs.OpSync || op.Kind == vfs.OpDirSync) && !l.node.failed && l.ill(seldomIll) {
			l.node.failed = true
			return vfs.Fault{Err: syscall.EIO, After: rng.IntN(2) == 0}
		}
	case logFlips:
		if len(op.Path) > 4 && op.Path[:4] == "log/" && op.Kind == vfs.OpWriteAt && !l.node.failed && l.ill(seldomIll) {
			l.node.failed = true
			return vfs.Fault{Flip: []int64{rng.Int64N(8 * op.Length)}}
		}
	}
	return vfs.Fault{}
}

// stray returns where a write to the data file goes: nowhere (negative), or to another place.
func (l *life) stray(name string, off int64) int64 {
	switch ill := l.node.w.opts.ill; {
	case name != blocksFile || off < 2*layout.BlockSize: // the header's write is of one moment
	case ill == losses && l.ill(oftenIll):
		return -1
	case ill == strays && l.ill(oftenIll):
		return off - layout.BlockSize
	}
	return off
}

// indexes flips bits in the index of a chunkserver that has crashed: in the tables, or in what says which there are.
func (n *node) indexes() {
	if n.w.opts.ill != indexFlips || !n.sick || n.failed || n.w.quiet || n.disk.IntN(4) > 0 {
		return
	}
	n.failed = true
	n.w.stats.Damages++
	kind := []string{".sst", "MANIFEST", "OPTIONS"}[n.disk.IntN(3)]
	at := n.disk.Float64()
	err := liar.Invert(n.index, indexDir, func(name string) bool { return strings.Contains(name, kind) }, at)
	n.w.say("chunkserver %d: bits of %s are inverted: %v", n.id, kind, err)
}

// indexDir is where the index is.
const indexDir = "store/index"

// out tells whether a chunkserver does not take part any more because of its disk.
func (n *node) out(s *set) bool {
	l := n.life
	switch {
	case n.lost != nil:
		return true
	case !n.sick || l == nil || l.host == nil:
		return false
	case l.host.Err() != nil || l.store.Err() != nil:
		return true
	}
	g := l.host.Group(s.id)
	return g != nil && final(g.Report().Err)
}

// final tells whether a peer has stopped, and does not wait for room or a good copy of a block.
func final(err error) bool {
	return err != nil && !errors.Is(err, blockstore.ErrNoSpace) && !errors.As(err, new(*blockstore.ChecksumError))
}

// spoiled tells whether a copyset has a block of which no replica that has applied everything has a good copy. One that lags can not
// say whether its copy is the one that is needed.
func (w *world) spoiled() bool {
	for _, s := range w.sets {
		last, bad := uint64(0), map[uint32]int{}
		good := 0 // replicas that have applied all
		for _, l := range w.replicas(s) {
			if l == nil || l.host == nil || l.host.Group(s.id) == nil {
				continue
			}
			at := l.host.Group(s.id).Applied()
			if at > last {
				last, good, bad = at, 0, map[uint32]int{}
			}
			if at < last {
				continue
			}
			good++
			for _, b := range l.damaged(s) {
				bad[b]++
			}
		}
		for _, n := range bad {
			if n == good {
				return true
			}
		}
	}
	return false
}

// damaged lists the damaged blocks of a replica.
func (l *life) damaged(s *set) (blocks []uint32) {
	cs, err := l.store.Copyset(s.id)
	if err != nil {
		return nil
	}
	for at := uint32(0); ; {
		v, err := cs.Verify(s.chunk, at)
		if err != nil {
			return blocks
		}
		for _, d := range v.Damaged {
			blocks = append(blocks, d.Block)
		}
		if at = v.Next; at == 0 {
			return blocks
		}
	}
}

// repairsMax bounds the repairs of one request.
const repairsMax = 2 * history.AreaBlocks

// mend repairs the damage that a request met, if that is what its error is.
func (l *life) mend(g *multiraft.Group, err error) bool {
	var bad *blockstore.ChecksumError
	if !l.node.w.opts.damages() || !errors.As(err, &bad) || l.host.Repair(l.node.w.ctx, g, bad) != nil {
		return false
	}
	l.node.w.stats.Repaired++
	return true
}
