package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/liar"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/sim/loop"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// node is a chunkserver with its disk, over all its lives.
type node struct {
	w     *world
	id    layout.ChunkserverID
	mem   *vfs.Mem
	index *pebblevfs.MemFS
	life  *life // nil while it is down
	lives uint64
	// Its clock: at the true time since it showed base, and it goes rate times as fast.
	since, base time.Duration
	rate        float64
	disk        *rand.Rand
	slow        time.Duration // the most that a sync of the log takes
	// failed: what its disk does wrong once it has done. lost: its disk is not used any more; why.
	failed bool
	lost   error
	// sick: its disk does what the illness of this world is. erased are the peers that were removed here.
	sick   bool
	erased map[layout.PeerID]bool
	full   bool // its disk has no room
}

// clock is the time that the chunkserver sees.
func (n *node) clock() time.Duration {
	return n.base + time.Duration(float64(n.w.Now-n.since)*n.rate)
}

// trueTime is when the chunkserver's clock will show at.
func (n *node) trueTime(at time.Duration) time.Duration {
	return n.since + time.Duration(float64(at-n.base)/n.rate) + 1
}

// skip moves the chunkserver's clock forward, as that of a machine that slept.
func (n *node) skip(d time.Duration) { n.since, n.base = n.w.Now, n.clock()+d }

// Clock, TrueTime, Stopped and Dead implement loop.Owner.
func (l *life) Clock() time.Duration                    { return l.node.clock() }
func (l *life) TrueTime(at time.Duration) time.Duration { return l.node.trueTime(at) }
func (l *life) Stopped() bool                           { return l.paused }
func (l *life) Dead() bool                              { return l.dead }

// life is a chunkserver from its start to its crash.
type life struct {
	node   *node
	fs     vfs.FS
	paused bool
	dead   bool // what it does has no effect any more
	// crash is after how many changes of the disk it crashes; 0: not. late: once the change is made.
	crash int
	late  bool
	log   *raftlog.Log
	store *blockstore.Store
	host  *multiraft.Host // nil until it serves
	stop  context.CancelFunc
	// A slow sync of the data file holds the store's lock of checkpoints: there is none while images come in (taking) or
	// peers are made (until placed), and these wait for one (syncing).
	syncing, taking int
	placed          bool
	obeyed          int                         // the last of world.wanted that was obeyed
	ballast         []blockstore.Blocks         // what fills the disk
	given           map[layout.CopysetID]uint64 // the last entry of which a bug gave the blocks back
}

// A chunkserver that crashed starts again after restartMin to restartMax.
const (
	restartMin = 20 * time.Millisecond
	restartMax = 4 * time.Second
)

// The names of tasks that the disk treats in ways of their own.
const (
	taskHost   = "host"
	taskRead   = "read"
	taskOrders = "orders"
)

// errCrashed is what a chunkserver that has crashed gets from its disk.
var errCrashed = errors.New("sim: crashed")

// format gives the chunkserver an empty disk.
func (n *node) format() { n.mem, n.index = vfs.NewMem(), pebblevfs.NewCrashableMem() }

// start begins a life.
func (n *node) start() {
	if n.life != nil || n.lost != nil {
		return
	}
	n.lives++
	l := &life{node: n}
	n.life = l
	l.fs = n.w.opts.Bug.disk(n, vfs.NewFault(n.mem, l.inject))
	if ill := n.w.opts.ill; ill == losses || ill == strays {
		l.fs = &liar.FS{FS: l.fs, Write: l.stray}
	}
	if n.id == 1 && n.lives == 1 {
		l.crash = n.w.opts.CrashAt
	}
	n.w.say("chunkserver %d starts", n.id)
	n.w.Spawn(l, "boot", func() {
		if err := l.run(); err != nil && !l.dead {
			n.w.stats.Refused++
			if n.w.opts.damages() {
				n.w.say("chunkserver %d does not start: %v", n.id, err)
				n.lost = err
				l.fall()
				return
			}
			n.w.find("chunkserver %d does not start: %v", n.id, err)
		}
	})
}

// The sizes are small, so that segments change and checkpoints happen within a few writes.
const (
	segmentSize  = 96 << 10
	segmentsMax  = 4
	messageBytes = 128 << 10
	growStep     = 1 << 20
)

// run opens the disk and serves, until the life ends.
func (l *life) run() (err error) {
	n := l.node
	id := byte(n.id)
	l.log, err = raftlog.Open(l.fs, "log", raftlog.Options{
		Identity: [16]byte{id}, SegmentSize: segmentSize, CacheBytes: n.w.opts.cacheBytes, Spares: 1,
	})
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	l.store, err = blockstore.Open(l.fs, "store", blockstore.Identity{Cluster: [16]byte{1}, Chunkserver: n.id}, blockstore.Options{
		IndexFS: n.index, GrowStep: growStep, FlushWriters: 1, DeferBelow: n.w.opts.deferBelow, IndexCacheSize: 1 << 20,
		CacheSize: n.w.opts.leafCache, Reserve: reserve,
	})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	cfg := multiraft.Default()
	cfg.Self, cfg.Log, cfg.Store, cfg.Transport = n.id, l.log, l.store, &port{w: n.w, l: l}
	cfg.FS, cfg.Dir, cfg.Scheduler = l.fs, "/", lifeScheduler{l}
	cfg.Workers, cfg.Appliers = 1, 1
	cfg.MessageBytes, cfg.InflightBytes, cfg.InflightMessages = messageBytes, 8*messageBytes, 16
	cfg.CheckpointEvery, cfg.CheckpointBytes = n.w.opts.checkpointEvery, 256<<10
	cfg.SegmentsMax, cfg.TailEntries, cfg.TailBytes = segmentsMax, n.w.opts.tailEntries, 128<<10
	cfg.SnapshotsMax, cfg.SpaceMargin, cfg.Digest = 1, spaceMargin, l.digest
	cfg.Logger, cfg.QuietTicks = n.logger(), n.w.opts.quietTicks
	n.w.opts.Bug.host(l, &cfg)
	host, err := multiraft.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.host = host
	n.w.say("chunkserver %d serves", n.id)
	n.w.Spawn(l, taskOrders, l.obey)
	return host.Run(ctx)
}

// logger tells what the host logs, if anybody listens.
func (n *node) logger() *zap.Logger {
	if n.w.logf == nil {
		return nil
	}
	text := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "M", SkipLineEnding: true})
	return zap.New(zapcore.NewCore(text, n, zapcore.InfoLevel))
}

// Write implements zapcore.WriteSyncer, and so does Sync.
func (n *node) Write(p []byte) (int, error) {
	n.w.say("chunkserver %d: %s", n.id, p)
	return len(p), nil
}

// Sync does nothing.
func (n *node) Sync() error { return nil }

// fall ends the life as a power cut does: of what was not synced, a part is lost.
func (l *life) fall() {
	if l.dead {
		return
	}
	n := l.node
	l.dead = true
	if !n.w.over {
		n.w.stats.Crashes++
	}
	n.w.Note(uint64(n.id), n.lives)
	n.w.say("chunkserver %d crashes", n.id)
	n.mem = n.mem.Crash(n.disk)
	n.index = n.index.CrashClone(pebblevfs.CrashCloneCfg{})
	n.indexes()
	n.w.opts.Bug.crashed(n)
	n.life = nil
	if !n.w.over {
		n.w.After(restartMin+time.Duration(n.disk.Int64N(int64(restartMax-restartMin))), n.start)
	}
	n.w.dying = append(n.w.dying, l)
}

// cut ends the life at an operation on the disk. One that is only being opened goes on to where it gives back what it has
// opened, but changes nothing any more.
func (l *life) cut() vfs.Fault {
	l.fall()
	if l.host != nil {
		loop.Kill()
	}
	return vfs.Fault{Err: errCrashed}
}

// obey makes and removes peers as they are wanted. It is the only one to give orders to its host.
func (l *life) obey() {
	for {
		wanted := l.node.w.wanted
		if l.placed = l.placed && l.obeyed == wanted; !l.placed {
			l.node.w.Park(func() bool { return l.syncing == 0 }, 0)
			if l.node.w.place(l) {
				l.placed, l.obeyed = true, wanted
			}
		}
		l.node.w.Sleep(orderEvery)
	}
}

// orderEvery is how often orders that failed are repeated.
const orderEvery = 200 * time.Millisecond

// close gives back what the life held, after its tasks have ended.
func (l *life) close() {
	if l.stop != nil {
		l.stop()
	}
	if l.log != nil {
		_ = l.log.Close() // its files are those of a dead life
	}
	if l.store != nil {
		_ = l.store.Close()
	}
}

// changes tells whether an operation changes the disk.
func changes(k vfs.OpKind) bool {
	switch k {
	case vfs.OpCreate, vfs.OpRemove, vfs.OpRename, vfs.OpMkdirAll, vfs.OpWriteAt, vfs.OpSync, vfs.OpTruncate,
		vfs.OpPreallocate, vfs.OpPunchHole, vfs.OpDirSync:
		return true
	}
	return false
}

// inject decides over each operation of the life on its disk.
func (l *life) inject(op vfs.Op) vfs.Fault {
	n := l.node
	w := n.w
	if l.dead {
		return vfs.Fault{Err: errCrashed}
	}
	w.Note(uint64(n.id), uint64(op.Kind), uint64(op.Offset), uint64(op.Length))
	if l.late {
		return l.cut()
	}
	if changes(op.Kind) {
		w.stats.DiskChanges++
		if l.crash > 0 {
			if l.crash--; l.crash == 0 {
				if late := n.disk.IntN(2) == 0; w.opts.CrashAt == 0 && !late || w.opts.CrashAt > 0 && !w.opts.CrashLate {
					return l.cut()
				}
				l.late = true
			}
		}
	}
	l.delay(op)
	return l.damage(op)
}

// delay makes a slow disk: the log's syncs and the reads of requests. Whoever else waits for the disk holds locks.
func (l *life) delay(op vfs.Op) {
	w := l.node.w
	t := w.Current()
	if w.quiet || t == nil || t.Dying() {
		return
	}
	switch {
	case op.Kind == vfs.OpSync && l.node.slow > 0 && strings.HasPrefix(op.Path, "log/") && l.host != nil && t.Name() == taskHost:
		w.Sleep(1 + time.Duration(l.node.disk.Int64N(int64(l.node.slow))))
	case op.Kind == vfs.OpSync && op.Path == blocksFile && t.Name() == taskHost && l.taking == 0 && l.placed && l.node.disk.IntN(2) == 0:
		l.syncing++
		w.Sleep(1 + time.Duration(l.node.disk.Int64N(int64(slowSync))))
		l.syncing--
	case op.Kind == vfs.OpReadAt && t.Name() == taskRead && l.node.disk.IntN(4) == 0:
		w.Sleep(1 + time.Duration(l.node.disk.Int64N(int64(slowRead))))
	}
}

// slowRead and slowSync are the most that a read and a sync of the data file take.
const (
	slowRead = 2 * time.Second
	slowSync = 60 * time.Millisecond
)
