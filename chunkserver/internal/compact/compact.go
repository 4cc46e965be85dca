package compact

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// candidatesMax bounds the chunks that a survey chooses.
	candidatesMax = 256
	// scatteredMin is from how many pieces more than need be on a chunk is a candidate.
	scatteredMin = 64
	// surveyEvery is how often the chunks are looked at, surveyShare how many times as long as a survey takes lies between two at
	// least, so that a large disk is not surveyed all the time.
	surveyEvery = 10 * time.Minute
	surveyShare = 20
	// stuckSurveys is for how many surveys chunks are passed over of which nothing could be moved, stuckMax bounds how many.
	stuckSurveys = 6
	stuckMax     = 4 * candidatesMax
	// settle is for how long a chunk has to have been left alone before it is compacted.
	settle = time.Minute
	// blocksPerMiB is the blocks in 1 MiB.
	blocksPerMiB = 1 << 20 / layout.BlockSize
)

// Disk is what is compacted.
type Disk interface {
	// Copysets returns the copysets, by number.
	Copysets() []layout.CopysetID
	// Copyset returns the content of one; an error when it is not there (any more).
	Copyset(id layout.CopysetID) (Content, error)
	// Exchange has the owner of a copyset's content exchange what was gathered, and returns how many blocks that were.
	Exchange(ctx context.Context, id layout.CopysetID, g *blockstore.Gathered) (int, error)
	// Roomy tells whether the disk works and has space that writes can spare.
	Roomy() bool
	// Requests returns a number that rises with the requests that are served.
	Requests() uint64
}

// Content is the content of a copyset; *blockstore.Copyset is one.
type Content interface {
	Chunks() []layout.ChunkID
	Scatter(ch layout.ChunkID) (blockstore.Scatter, error)
	Gather(ch layout.ChunkID, first uint32) (*blockstore.Gathered, uint32, error)
}

// Config configures a Compactor.
type Config struct {
	// RateMax is the most that is read and written per second, in bytes; 0: nothing is moved, and the surveys go on.
	RateMax int64
	// GiveBack gives disk space back that the data file has to spare, and returns how much, in bytes.
	GiveBack func() int64
	Logger   *zap.Logger
}

// Stats is what others are told.
type Stats struct {
	// Moved is the bytes of the blocks that were moved since New, GivenBack the disk space that was given back.
	Moved, GivenBack int64
	// Blocks and Pieces are what the last survey found: how many blocks there are, and in how many pieces they lie. Scattered is
	// how many chunks it found that are worth to be compacted. Surveys counts them.
	Blocks, Pieces, Scattered, Surveys int64
}

// PiecesPerMiB returns in how many pieces 1 MiB lies on average; 0 when nothing is known.
func (s Stats) PiecesPerMiB() float64 {
	if s.Blocks == 0 {
		return 0
	}
	return float64(s.Pieces) * blocksPerMiB / float64(s.Blocks)
}

// Compactor compacts one disk. Run owns it; Stats is for all.
type Compactor struct {
	cfg  Config
	disk Disk
	pace pace
	// stuck are the candidates of which nothing could be moved.
	stuck map[candidate]bool

	moved, givenBack atomic.Int64
	mu               struct {
		sync.Mutex
		last Stats
	}
}

// New returns a Compactor.
func New(cfg Config, disk Disk) *Compactor {
	return &Compactor{cfg: cfg, disk: disk, pace: pace{max: cfg.RateMax}, stuck: map[candidate]bool{}}
}

// Stats returns what was done and found.
func (c *Compactor) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.mu.last
	s.Moved, s.GivenBack = c.moved.Load(), c.givenBack.Load()
	return s
}

// candidate is a chunk that lies scattered.
type candidate struct {
	copyset layout.CopysetID
	chunk   layout.ChunkID
	// extra is how many pieces it lies in more than need be.
	extra   int
	changes uint64
}

// Run compacts until ctx ends.
func (c *Compactor) Run(ctx context.Context) {
	c.pace.begin(c.disk.Requests())
	for wait := settle; sleep(ctx, wait); {
		began := time.Now()
		found := c.survey(ctx)
		wait = max(surveyEvery, surveyShare*time.Since(began))
		if len(found) > 0 && c.cfg.RateMax > 0 {
			if !sleep(ctx, settle) {
				return
			}
			if c.round(ctx, found) > 0 {
				wait = settle
			}
		}
		if n := c.cfg.GiveBack(); n > 0 {
			c.givenBack.Add(n)
			c.cfg.Logger.Info("disk space given back", zap.Int64("bytes", n))
		}
	}
}

// sleep waits that long. It returns false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// survey looks how all chunks lie, and returns the worst, first the worst of them.
func (c *Compactor) survey(ctx context.Context) (worst []candidate) {
	var s Stats
	if c.Stats().Surveys%stuckSurveys == 0 || len(c.stuck) > stuckMax {
		clear(c.stuck)
	}
	for _, id := range c.disk.Copysets() {
		content, err := c.disk.Copyset(id)
		if err != nil {
			continue // it was removed
		}
		for _, ch := range content.Chunks() {
			began := time.Now()
			x, err := content.Scatter(ch)
			if err != nil {
				if !errors.Is(err, blockstore.ErrRemoved) {
					c.cfg.Logger.Warn("a chunk's extent map can not be read", zap.Uint64("copyset", uint64(id)), zap.Stringer("chunk", ch), zap.Error(err))
				}
				continue
			}
			s.Blocks, s.Pieces = s.Blocks+int64(x.Blocks), s.Pieces+int64(x.Pieces)
			if n := x.Pieces - x.Least; n >= scatteredMin {
				s.Scattered++
				if x := (candidate{id, ch, n, x.Changes}); !c.stuck[x] {
					worst = keep(worst, x)
				}
			}
			if !sleep(ctx, c.pace.pause(0, time.Since(began), c.disk.Requests())) {
				return nil
			}
		}
	}
	c.mu.Lock()
	s.Surveys = c.mu.last.Surveys + 1
	c.mu.last = s
	c.mu.Unlock()
	return keep(worst, candidate{})
}

// keep adds a candidate, if it has any extra pieces, and keeps the worst candidatesMax, in order when it is called without.
func keep(worst []candidate, x candidate) []candidate {
	if x.extra > 0 {
		worst = append(worst, x)
	}
	if len(worst) < 2*candidatesMax && x.extra > 0 {
		return worst
	}
	slices.SortStableFunc(worst, func(a, b candidate) int { return cmp.Compare(b.extra, a.extra) })
	return worst[:min(len(worst), candidatesMax)]
}

// round compacts the chunks that have not changed since the survey, and returns how many blocks were moved.
func (c *Compactor) round(ctx context.Context, found []candidate) (blocks int) {
	chunks := 0
	for _, x := range found {
		content, err := c.disk.Copyset(x.copyset)
		if err != nil {
			continue
		}
		if now, err := content.Scatter(x.chunk); err != nil || now.Changes != x.changes {
			continue // it is being written
		}
		n, err := c.compact(ctx, content, x)
		if ctx.Err() != nil {
			return blocks
		}
		if err != nil {
			c.cfg.Logger.Warn("chunk not compacted", zap.Uint64("copyset", uint64(x.copyset)), zap.Stringer("chunk", x.chunk), zap.Error(err))
		}
		if n == 0 {
			c.stuck[x] = true
			continue
		}
		chunks, blocks = chunks+1, blocks+n
	}
	if blocks > 0 {
		c.cfg.Logger.Info("compacted", zap.Int("chunks", chunks), zap.Int("blocks", blocks))
	}
	return blocks
}

// compact gathers a chunk, stretch by stretch, and returns how many blocks were moved.
func (c *Compactor) compact(ctx context.Context, content Content, x candidate) (blocks int, err error) {
	for first := uint32(0); ; {
		if !c.yield(ctx) {
			return blocks, ctx.Err()
		}
		began := time.Now()
		g, next, err := content.Gather(x.chunk, first)
		var bytes int64
		if err == nil && g != nil {
			bytes = 2 * g.Bytes()
			var n int
			n, err = c.disk.Exchange(ctx, x.copyset, g)
			g.Drop() // if nobody has exchanged it
			blocks += n
			c.moved.Add(int64(n) * layout.BlockSize)
		}
		if err != nil {
			if errors.Is(err, blockstore.ErrRemoved) {
				err = nil
			}
			return blocks, err
		}
		if !sleep(ctx, c.pace.pause(bytes, time.Since(began), c.disk.Requests())) {
			return blocks, ctx.Err()
		}
		if first = next; next == 0 {
			return blocks, nil
		}
	}
}

// yield waits until the disk is not busy and has room. It returns false when ctx has ended.
func (c *Compactor) yield(ctx context.Context) bool {
	for c.pace.busy(time.Now(), c.disk.Requests()) || !c.disk.Roomy() {
		if !sleep(ctx, busyPause) {
			return false
		}
	}
	return ctx.Err() == nil
}
