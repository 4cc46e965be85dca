package scrub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/smallfile"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

const (
	// Name is the name of the file that holds the state.
	Name = "SCRUB"
	// saveEvery bounds the progress that a crash forgets.
	saveEvery = time.Minute
	// rateEvery is how often the rate is computed anew.
	rateEvery = 10 * time.Second
	// retryEvery is how often repair is tried again of what could not be repaired.
	retryEvery = time.Hour
	// retryMax bounds how long a pass waits for that: peers that do not answer take repairTimeout for each block.
	retryMax = 10 * time.Minute
	// repairTries is how often a damaged block is asked for when it is met, repairPause the time between two tries,
	// repairTimeout the bound of one.
	repairTries   = 3
	repairPause   = 2 * time.Second
	repairTimeout = 10 * time.Second
)

// ErrFailed means that the disk has failed: there is nothing to scrub.
var ErrFailed = errors.New("scrub: the disk has failed")

// Disk is what is scrubbed.
type Disk interface {
	// Err returns why the disk is not used any more, or nil.
	Err() error
	// Copysets returns the copysets, by number.
	Copysets() []layout.CopysetID
	// Copyset returns the content of one; an error when it is not there (any more).
	Copyset(id layout.CopysetID) (Content, error)
	// Repair replaces a damaged block by another peer's copy.
	Repair(ctx context.Context, e *blockstore.ChecksumError) error
	// Compare has the replicas of a copyset compared if it is led here.
	Compare(ctx context.Context, id layout.CopysetID) error
	// Used returns the bytes that all blocks occupy.
	Used() int64
	// Requests returns a number that rises with the requests that are served.
	Requests() uint64
}

// Content is the content of a copyset; *blockstore.Copyset is one.
type Content interface {
	Chunks() []layout.ChunkID
	Verify(ch layout.ChunkID, first uint32) (blockstore.Verified, error)
	VerifyVersions(from blockstore.VersionLeaf) (blockstore.Verified, blockstore.VersionLeaf, error)
}

// Config configures a Scrubber.
type Config struct {
	FS  vfs.FS
	Dir string
	// Interval is the time within which everything is read; 0: only when it is asked for.
	Interval time.Duration
	// RateMax is the most that is read per second, in bytes.
	RateMax int64
	Logger  *zap.Logger
}

// Status is what others are told.
type Status struct {
	State
	// Rate is how much is read per second now, in bytes; 0 when no pass runs. Used is what all blocks occupy, in bytes.
	Rate, Used int64
	// Next is when the next pass begins; zero when it runs, or when none is planned.
	Next time.Time
}

// Counters count since New.
type Counters struct{ Verified, Damaged, Repaired atomic.Int64 }

// Scrubber scrubs one disk. Run owns the state; the other methods are for all.
type Scrubber struct {
	cfg      Config
	pace     pace
	disk     Disk
	file     smallfile.File
	log      *zap.Logger
	counters Counters
	ask      chan struct{}

	mu struct {
		sync.Mutex
		st   State
		rate int64
		// asked is the number of the pass that was asked for and has not begun; 0: none.
		asked uint64
	}

	// Owned by Run.
	saved, rated, retried time.Time
	unsaved               error // of the last save
	requests              uint64
}

// New returns a Scrubber that goes on where the state in Config.Dir says. A state that can not be read is left behind: then
// the first pass begins at once.
func New(cfg Config, disk Disk) *Scrubber {
	s := &Scrubber{cfg: cfg, disk: disk, log: cfg.Logger, ask: make(chan struct{}, 1)}
	s.pace = pace{interval: cfg.Interval, max: cfg.RateMax}
	s.file = smallfile.File{FS: cfg.FS, Dir: cfg.Dir, Name: Name, Magic: "ashlarsc", Version: 1}
	b, err := s.file.Read()
	if err == nil && b != nil {
		s.mu.st, err = parse(b)
	}
	if err != nil {
		s.log.Warn("scrub begins anew", zap.Error(err))
	}
	return s
}

// Err returns ErrFailed with its cause when the disk has failed: no pass goes on or begins then.
func (s *Scrubber) Err() error {
	if err := s.disk.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return nil
}

// Counters returns the counters.
func (s *Scrubber) Counters() *Counters { return &s.counters }

// Start asks for a pass that begins now and goes as fast as it may, and returns its number. One that runs because it was
// asked for is that pass; a planned one is begun anew.
func (s *Scrubber) Start() (pass uint64, err error) {
	if err := s.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.st.Running && s.mu.st.Asked {
		return s.mu.st.Pass, nil
	}
	s.mu.asked = s.mu.st.Pass + 1
	select {
	case s.ask <- struct{}{}:
	default:
	}
	return s.mu.asked, nil
}

// Status returns what the scrub does.
func (s *Scrubber) Status() Status {
	used := s.disk.Used()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Status{State: s.mu.st.clone(), Used: used}
	switch {
	case s.mu.st.Running:
		r.Rate = s.mu.rate
	case s.cfg.Interval > 0:
		r.Next = s.mu.st.Began.Add(s.cfg.Interval)
	}
	return r
}

// change changes the state.
func (s *Scrubber) change(f func(st *State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.mu.st)
}

func (s *Scrubber) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.st.clone()
}

// Run scrubs until ctx ends.
func (s *Scrubber) Run(ctx context.Context) {
	s.saved, s.retried = time.Now(), time.Now()
	defer s.save()
	for ctx.Err() == nil {
		if s.begin() {
			s.pass(ctx)
			continue
		}
		wait := retryEvery
		if next := s.Status().Next; !next.IsZero() && s.disk.Err() == nil {
			wait = min(time.Until(next), wait)
		}
		s.wait(ctx, wait)
		s.retry(ctx)
	}
}

// wait waits that long, or until a pass is asked for.
func (s *Scrubber) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ask:
	case <-ctx.Done():
	}
}

// begin tells whether a pass is to run now, and begins it if it does not run yet.
func (s *Scrubber) begin() bool {
	if s.disk.Err() != nil {
		return false
	}
	now := time.Now()
	s.mu.Lock()
	st := &s.mu.st
	first := true
	switch {
	case s.mu.asked != 0:
		s.mu.asked = 0
		st.begin(now, true)
	case st.Running && (st.Asked || s.cfg.Interval > 0):
		first = false
	case s.cfg.Interval > 0 && (now.Before(st.Began) || !now.Before(st.Began.Add(s.cfg.Interval))): // or the clock was set back
		st.begin(now, false)
	default:
		st.Running = false // it was a planned one, and none is planned any more
		s.mu.Unlock()
		return false
	}
	pass, asked := st.Pass, st.Asked
	s.mu.Unlock()
	if first {
		s.log.Info("scrub begins", zap.Uint64("pass", pass), zap.Bool("asked", asked))
		s.save()
	}
	s.rated = time.Time{}
	return true
}

// pass goes on with the present pass until it ends, another one is asked for, or ctx ends.
func (s *Scrubber) pass(ctx context.Context) {
	for _, id := range s.disk.Copysets() {
		at := s.state().At
		if id < at.Copyset {
			continue
		}
		content, err := s.disk.Copyset(id)
		if err != nil {
			continue // it was removed
		}
		for _, ch := range content.Chunks() {
			from := Place{Copyset: id, Volume: ch.Volume, Chunk: ch.Index}
			switch c := from.compareChunk(at); {
			case c < 0:
				continue
			case c == 0:
				from.Block = at.Block
			}
			if !s.chunk(ctx, content, from) {
				return
			}
		}
		if !s.versions(ctx, content, id) || s.interrupted(ctx) {
			return
		}
		if err := s.disk.Compare(ctx, id); err != nil {
			s.log.Warn("replicas not compared", zap.Uint64("copyset", uint64(id)), zap.Error(err))
		}
	}
	s.change(func(st *State) { st.end(time.Now()) })
	s.save()
	st := s.state()
	s.log.Info("scrub ended", zap.Uint64("pass", st.Pass), zap.Duration("took", st.Ended.Sub(st.Began)),
		zap.Int64("blocks", st.Last.Verified), zap.Int64("damaged", st.Last.Damaged), zap.Int64("repaired", st.Last.Repaired),
		zap.Int64("unrepairable", st.Last.Unrepairable), zap.Int64("skipped_chunks", st.Last.Skipped))
}

// chunk verifies a chunk from a block on. It returns false when the pass is not to go on.
func (s *Scrubber) chunk(ctx context.Context, content Content, at Place) bool {
	for {
		chunk := at.chunk()
		var next uint32
		goOn := s.step(ctx, content, at, func() (v blockstore.Verified, err error) {
			v, err = content.Verify(chunk, at.Block)
			next = v.Next
			return v, err
		}, func(st *State) {
			if at.Block = next; next == 0 {
				at.Chunk++
			}
			st.At = at
		})
		if next == 0 || !goOn {
			return goOn
		}
	}
}

// versions verifies what only versions of volumes have. It returns false when the pass is not to go on; it begins with the first
// of them then, because the state has no place for them.
func (s *Scrubber) versions(ctx context.Context, content Content, id layout.CopysetID) bool {
	var from, next blockstore.VersionLeaf
	for {
		at := Place{Copyset: id, Volume: from.Chunk.Volume, Chunk: from.Chunk.Index}
		goOn := s.step(ctx, content, at, func() (v blockstore.Verified, err error) {
			v, next, err = content.VerifyVersions(from)
			return v, err
		}, func(*State) {})
		if from = next; !goOn || next == (blockstore.VersionLeaf{}) {
			return goOn
		}
	}
}

// step reads once, at at, has repaired what is damaged, has then note where the pass is, and waits as the pace says. It returns false
// when the pass is not to go on. What can not be read is skipped.
func (s *Scrubber) step(
	ctx context.Context, content Content, at Place, verify func() (blockstore.Verified, error), then func(st *State),
) (goOn bool) {
	if s.interrupted(ctx) {
		return false
	}
	rate := s.rate()
	began := time.Now()
	v, err := verify()
	took := time.Since(began)
	if err != nil {
		if !errors.Is(err, blockstore.ErrRemoved) {
			s.log.Error("scrub can not read a chunk's extent map", zap.Uint64("copyset", uint64(at.Copyset)),
				zap.Stringer("chunk", at.chunk()), zap.Error(err))
			s.change(func(st *State) { st.Tally.Skipped++ })
		}
		return true
	}
	for _, e := range v.Damaged {
		s.damaged(ctx, content, e)
		if s.interrupted(ctx) {
			return false // what was not repaired in time is met again
		}
	}
	s.counters.Verified.Add(int64(v.Blocks))
	s.change(func(st *State) {
		st.Tally.Verified += int64(v.Blocks)
		then(st)
	})
	s.wait(ctx, s.pace.pause(rate, int64(v.Blocks)*layout.BlockSize, took, s.busy()))
	s.keep(ctx)
	return true
}

// interrupted tells that the pass is not to go on.
func (s *Scrubber) interrupted(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.asked != 0 || ctx.Err() != nil || s.disk.Err() != nil
}

// busy tells whether requests came in since it was called last and the scrub is to yield.
func (s *Scrubber) busy() bool {
	n := s.disk.Requests()
	came := n != s.requests
	s.requests = n
	s.mu.Lock()
	defer s.mu.Unlock()
	return came && !s.pace.late(time.Now(), &s.mu.st)
}

// rate returns how much to read per second, computed anew each rateEvery.
func (s *Scrubber) rate() int64 {
	now := time.Now()
	if now.Sub(s.rated) >= rateEvery {
		s.rated = now
		used := s.disk.Used()
		s.mu.Lock()
		s.mu.rate = s.pace.rate(now, &s.mu.st, used-s.mu.st.Tally.Verified*layout.BlockSize)
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.rate
}

// keep does what is due from time to time.
func (s *Scrubber) keep(ctx context.Context) {
	if time.Since(s.saved) >= saveEvery {
		s.save()
	}
	s.retry(ctx)
}

// save writes the state. A failure is told once in a row: the scrub goes on without.
func (s *Scrubber) save() {
	s.saved = time.Now()
	st := s.state()
	err := s.file.Replace(st.encode())
	if err != nil && s.unsaved == nil {
		s.log.Warn("state of the scrub not saved", zap.Error(err))
	}
	s.unsaved = err
}

// damaged repairs a block that was found damaged, and remembers what became of it.
func (s *Scrubber) damaged(ctx context.Context, content Content, e *blockstore.ChecksumError) {
	err := s.repair(ctx, content, e, repairTries)
	if ctx.Err() != nil {
		return
	}
	s.counters.Damaged.Add(1)
	f := Finding{Place: placeOf(e), Time: time.Now(), Repaired: err == nil, Problem: "checksum mismatch"}
	if e.Err != nil {
		f.Problem = e.Err.Error()
	}
	fields := []zap.Field{
		zap.Uint64("copyset", uint64(e.Copyset)), zap.Stringer("chunk", e.Chunk), zap.Uint32("block", e.Block), zap.Uint64("version", e.Version), zap.String("problem", f.Problem),
	}
	if err == nil {
		s.counters.Repaired.Add(1)
		s.log.Warn("scrub repaired a damaged block", fields...)
	} else {
		f.Error = err.Error()
		s.log.Error("scrub found a damaged block that no peer could repair", append(fields, zap.Error(err))...)
	}
	s.change(func(st *State) {
		f.Pass = st.Pass
		st.Tally.Damaged++
		if f.Repaired {
			st.Tally.Repaired++
		} else {
			st.Tally.Unrepairable++
		}
		st.note(f)
	})
	s.save()
}

// repair replaces a damaged block. A block that was overwritten or freed meanwhile is as good as repaired.
func (s *Scrubber) repair(ctx context.Context, content Content, e *blockstore.ChecksumError, tries int) (err error) {
	for try := range tries {
		if try > 0 {
			t := time.NewTimer(repairPause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
		}
		rctx, cancel := context.WithTimeout(ctx, repairTimeout)
		err = s.disk.Repair(rctx, e)
		cancel()
		if err == nil || !stillDamaged(content, e) {
			return nil
		}
	}
	return err
}

// stillDamaged tells whether the block is, as far as that can be told.
func stillDamaged(content Content, e *blockstore.ChecksumError) bool {
	var v blockstore.Verified
	var err error
	if e.Version != 0 {
		v, _, err = content.VerifyVersions(blockstore.VersionLeafOf(e))
	} else {
		v, err = content.Verify(e.Chunk, e.Block)
	}
	if err != nil {
		return !errors.Is(err, blockstore.ErrRemoved)
	}
	return slices.ContainsFunc(v.Damaged, func(d *blockstore.ChecksumError) bool { return placeOf(d) == placeOf(e) })
}

// retry tries again, each retryEvery, to repair what could not be. A pass that is asked for does not wait for it.
func (s *Scrubber) retry(ctx context.Context) {
	if time.Since(s.retried) < retryEvery || s.disk.Err() != nil {
		return
	}
	began := time.Now()
	defer func() { s.retried = time.Now() }()
	for _, f := range s.state().Bad {
		if s.interrupted(ctx) || time.Since(began) > retryMax {
			break
		}
		e := &blockstore.ChecksumError{Copyset: f.Copyset, Chunk: f.chunk(), Block: f.Block, Version: f.Version}
		content, err := s.disk.Copyset(f.Copyset)
		if err == nil && stillDamaged(content, e) {
			if s.repair(ctx, content, e, 1) != nil {
				s.change(func(st *State) { st.later(f.Place) })
				continue
			}
			s.counters.Repaired.Add(1)
			s.log.Warn("scrub repaired a damaged block at last", zap.Uint64("copyset", uint64(e.Copyset)),
				zap.Stringer("chunk", e.Chunk), zap.Uint32("block", e.Block))
		}
		s.change(func(st *State) { st.mended(f.Place) })
	}
	if ctx.Err() == nil {
		s.save()
	}
}
