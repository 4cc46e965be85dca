package quiet

import (
	"context"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/sched"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// neighboursEvery is after how many beats it is looked anew whom to send them.
const neighboursEvery = 16

// Run sends a beat to each neighbour in each period, and tells which processes are lost. It serves until ctx ends; the three
// functions do not block.
func (p *Pulse) Run(
	ctx context.Context, clock *sched.Clock, period time.Duration,
	neighbours func() []layout.ChunkserverID, send func(layout.ChunkserverID, Incarnation), lost func(layout.ChunkserverID),
) {
	bell := clock.NewBell()
	var to []layout.ChunkserverID
	for n := 0; ; n++ {
		bell.Wait(ctx, clock.Now()+period) // a whole period from now on: what was missed is not made up
		if ctx.Err() != nil {
			return
		}
		for _, cs := range p.Tick() {
			lost(cs)
		}
		if n%neighboursEvery == 0 {
			to = neighbours()
		}
		for _, cs := range to {
			send(cs, p.Own())
		}
	}
}
