package chunkserver

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/diskwatch"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/heartbeat"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
)

// A disk that does not come back with what was asked of it.
const (
	// patience is for how long a write may be under way before others lead what waits for it, readPatience the same for reads,
	// of which only this disk knows.
	patience, readPatience = 2 * time.Second, 4 * time.Second
	// backgroundPatience is for how long what is in the background may be under way before the metaserver is told, which has
	// others lead everything then: on a good disk under load a checkpoint can take seconds.
	backgroundPatience = 10 * time.Second
	// stalledMax is from when on a disk counts as failed, until it answers.
	stalledMax = 30 * time.Second
	// guardEvery is how often that is looked at, yieldEvery how often leadership is given away meanwhile.
	guardEvery, yieldEvery = 200 * time.Millisecond, time.Second
	// usageEvery is how often the disk is asked for its space.
	usageEvery = time.Second
)

// disk looks after one disk for all who must not wait for it: it knows the disk's space of a moment ago, for how long
// operations have been under way, and hands leadership over when that is too long. A leader whose disk does not answer
// keeps its lease, because its followers do answer, and yet can apply nothing.
type disk struct {
	log   *zap.Logger
	watch *diskwatch.Watch
	usage func() (blockstore.Usage, heartbeat.Space)
	// margin is the free space above the store's reserve below which writes are refused, in bytes.
	margin int64
	// yield asks for what is led here to be led by others: everything, or what others have committed and this disk has not.
	yield func(ctx context.Context, all bool)
	last  atomic.Pointer[usageAt]
	// slow is set while the metaserver says so.
	slow atomic.Bool
}

type usageAt struct {
	blockstore.Usage
	space heartbeat.Space
	at    time.Time
}

// newDisk returns a disk whose space was just asked for.
func newDisk(
	log *zap.Logger, w *diskwatch.Watch, usage func() (blockstore.Usage, heartbeat.Space), margin int64, yield func(context.Context, bool),
) *disk {
	d := &disk{log: log, watch: w, usage: usage, margin: margin, yield: yield}
	d.sample()
	return d
}

func (d *disk) sample() {
	u, space := d.usage()
	d.last.Store(&usageAt{Usage: u, space: space, at: time.Now()})
}

// space says what the bytes of the disk are for, as it was last told.
func (d *disk) space() heartbeat.Space {
	u := d.last.Load()
	s := u.space
	s.Reserved = u.Reserve + d.margin
	return s
}

// Usage returns the space of the disk as it was last told, and how long ago that was. It does not wait for the disk.
func (d *disk) Usage() (blockstore.Usage, time.Duration) {
	u := d.last.Load()
	return u.Usage, time.Since(u.at)
}

// Err says that the disk has not answered for so long that it counts as failed.
func (d *disk) Err() error {
	for c := diskwatch.Log; c <= diskwatch.Background; c++ {
		if t := d.watch.Stalled(c); t > stalledMax {
			return fmt.Errorf("chunkserver: the disk does not answer: a %s has been under way for %v", c, t.Round(time.Second))
		}
	}
	return nil
}

// report is what the metaserver is told. The capacity is that for hosts: a disk that is used to it refuses writes.
func (d *disk) report(failure error) heartbeat.Disk {
	u, age := d.Usage()
	capacity := max(u.Capacity-u.Reserve-d.margin, 1)
	r := heartbeat.Disk{Capacity: capacity, Used: min(u.Used+u.PendingFree, capacity), Age: age, Health: d.watch.Health(), Err: failure}
	r.Space = d.space()
	if r.Err == nil {
		r.Err = d.Err()
	}
	for c, most := range [...]time.Duration{diskwatch.Log: patience, diskwatch.Read: readPatience, diskwatch.Background: backgroundPatience} {
		if t := d.watch.Stalled(diskwatch.Class(c)); t >= most {
			r.Stalled = max(r.Stalled, t)
		}
	}
	return r
}

// Run serves until ctx ends. It ends only when the disk answers.
func (d *disk) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.watch.Run(ctx) })
	wg.Go(func() { d.guard(ctx) })
	t := time.NewTicker(usageEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.sample()
		case <-ctx.Done():
			return
		}
	}
}

// guard hands leadership over while the disk does not answer.
func (d *disk) guard(ctx context.Context) {
	t := time.NewTicker(guardEvery)
	defer t.Stop()
	var asked time.Time
	told := false
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		reads := d.watch.Stalled(diskwatch.Read)
		// The data of large writes is in the background too. A checkpoint alone moves nothing: what others have committed is
		// applied here without it.
		writes := max(d.watch.Stalled(diskwatch.Log), d.watch.Stalled(diskwatch.Background))
		stalled := writes >= patience || reads >= readPatience
		switch {
		case stalled && !told:
			d.log.Warn("the disk does not answer", zap.Duration("writes", writes), zap.Duration("reads", reads))
		case !stalled && told:
			d.log.Info("the disk answers again")
		}
		told = stalled
		if stalled && time.Since(asked) >= yieldEvery {
			asked = time.Now()
			yctx, cancel := context.WithTimeout(ctx, yieldEvery)
			d.yield(yctx, reads >= readPatience)
			cancel()
		}
	}
}
