package sim

import (
	"errors"
	"math/rand/v2"
	"syscall"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/history"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// illness is what the disk of one chunkserver does wrong by itself.
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
	illnesses
)

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
	if w.quiet || l.node != w.nodes[0] || !l.placed || l.node.disk.IntN(every) > 0 {
		return false
	}
	w.stats.Damages++
	return true
}

// damage is what a disk does wrong by itself.
func (l *life) damage(op vfs.Op) vfs.Fault {
	w, rng := l.node.w, l.node.disk
	blocks := op.Path == "store/blocks"
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

// illFS is a disk whose writes to the data file are lost or go astray.
type illFS struct {
	vfs.FS
	l *life
}

// Open implements vfs.FS.
func (i illFS) Open(name string, flags vfs.OpenFlags) (vfs.File, error) {
	f, err := i.FS.Open(name, flags)
	if err == nil && name == "store/blocks" {
		return illFile{f, i.l, i.l.node.disk}, nil
	}
	return f, err
}

type illFile struct {
	vfs.File
	l   *life
	rng *rand.Rand
}

// WriteAt implements vfs.File.
func (f illFile) WriteAt(p []byte, off int64) (int, error) {
	switch ill := f.l.node.w.opts.ill; {
	case off < 2*layout.BlockSize: // the header's write is of one moment
	case ill == losses && f.l.ill(oftenIll):
		return len(p), nil
	case ill == strays && f.l.ill(oftenIll):
		return f.File.WriteAt(p, off-layout.BlockSize)
	}
	return f.File.WriteAt(p, off)
}

// out tells whether a chunkserver does not take part any more because of its disk.
func (n *node) out(s *set) bool {
	if n.lost != nil {
		return true
	}
	if !n.w.opts.damages() || n != n.w.nodes[0] || n.life == nil || n.life.host == nil {
		return false
	}
	g := n.life.host.Group(s.id)
	return n.life.host.Err() != nil || n.life.store.Err() != nil || g != nil && g.Report().Err != nil
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
