// Package copies gets a good copy of something that is damaged here from whoever has one.
//
//	         ┌─ read ── chunkserver 2 (lags: answers when it has caught up)
//	First ───┤
//	         └─ read ── chunkserver 3 ──► put: does it fit? ──► done
package copies

import (
	"context"
	"errors"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// ErrNobody means that there is nobody to ask.
var ErrNobody = errors.New("copies: there is no other peer")

// Ask is a question to a chunkserver, for what it has when it has applied the entries up to From; 0: for what it has.
type Ask struct {
	Chunkserver layout.ChunkserverID
	From        uint64
}

// Asks returns what to ask chunkservers: for what they have at the moment, because one that lags may have the copy and never catch
// up, and for what they have when they have caught up.
func Asks(of []layout.ChunkserverID, from uint64) []Ask {
	asks := make([]Ask, 0, 2*len(of))
	for _, cs := range of {
		asks = append(asks, Ask{cs, 0}, Ask{cs, from})
	}
	return asks
}

// Copy is an answer.
type Copy struct {
	Data []byte
	// Every entry up to From is in Data, none behind Through.
	From, Through uint64
}

// copied is a Copy or why there is none.
type copied struct {
	c   Copy
	err error
}

// First asks all at once and gives put one answer after the other, as they come, until one fits: put returns nil. Otherwise it returns
// the last error of read or put. What is still being read then is stopped and waited for.
func First(
	ctx context.Context, clock *sched.Clock, stopped <-chan struct{}, asks []Ask,
	read func(context.Context, Ask) (Copy, error), put func(Copy) error,
) error {
	tasks := clock.NewTasks()
	defer tasks.Stop()
	got := make(chan copied, len(asks))
	for _, a := range asks {
		tasks.Run(func(ctx context.Context) {
			c, err := read(ctx, a)
			got <- copied{c, err}
		})
	}
	last := ErrNobody
	for range asks {
		c, err := sched.Recv(ctx, clock, got, stopped)
		if err != nil {
			return errors.Join(err, last)
		}
		if c.err == nil {
			c.err = put(c.c)
		}
		if c.err == nil {
			return nil
		}
		last = c.err
	}
	return last
}

// Mend repairs the damaged block that somebody met, and what else of its chunk behind it is damaged, which he would meet next.
func Mend(cs *blockstore.Copyset, e *blockstore.ChecksumError, repair func(*blockstore.ChecksumError) error) error {
	for at := e.Block; ; {
		v, err := cs.Verify(e.Chunk, at)
		if err != nil {
			return err
		}
		for _, d := range v.Damaged {
			if err := repair(d); err != nil {
				return err
			}
		}
		if at = v.Next; at == 0 {
			return nil
		}
	}
}
