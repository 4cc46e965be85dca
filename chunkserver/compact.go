package chunkserver

import (
	"context"
	"fmt"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/compact"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// newCompactor returns the compactor of the opened parts.
func (s *Server) newCompactor(p *parts) *compact.Compactor {
	return compact.New(compact.Config{RateMax: s.cfg.Compaction.RateMax, GiveBack: p.store.GiveBack, Logger: s.log}, compacted{scrubbed{p}})
}

// compacted is a chunkserver as its compactor sees it.
type compacted struct{ scrubbed }

func (d compacted) Copyset(id layout.CopysetID) (compact.Content, error) {
	c, err := d.p.store.Copyset(id)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Roomy tells whether there is twice as much space as that at which writes are refused.
func (d compacted) Roomy() bool {
	u, _ := d.p.disk.Usage()
	return d.Err() == nil && d.p.disk.Err() == nil && u.Free > u.Reserve+2*d.p.disk.margin
}

func (d compacted) Exchange(ctx context.Context, id layout.CopysetID, g *blockstore.Gathered) (int, error) {
	group := d.p.host.Group(id)
	if group == nil {
		return 0, fmt.Errorf("chunkserver: copyset %d has no peer here", id)
	}
	moved := make(chan int, 1)
	err := group.Own(ctx, func(c *blockstore.Copyset) error {
		n, err := c.Exchange(g)
		moved <- n
		return err
	})
	select {
	case n := <-moved:
		return n, err
	default:
		return 0, err // nobody did it
	}
}
