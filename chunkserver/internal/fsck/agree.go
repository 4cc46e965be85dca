package fsck

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peerlist"
	"github.com/ashlar-storage/ashlar/storage/blockstore/inspect"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
)

// eachSide calls fn for the sideloaded entries of the log.
func (c *checker) eachSide(fn func(id layout.CopysetID, e *raftlog.InspectedSide)) {
	if c.log == nil {
		return
	}
	for i := range c.log.Groups {
		g := &c.log.Groups[i]
		for k := range g.Side {
			fn(g.Copyset, &g.Side[k])
		}
	}
}

// held returns which copyset's entries have which blocks of the data file.
func (c *checker) held() map[uint64]layout.CopysetID {
	held := map[uint64]layout.CopysetID{}
	c.eachSide(func(id layout.CopysetID, e *raftlog.InspectedSide) {
		for _, x := range e.Extents {
			for i := range uint64(x.Blocks) {
				held[x.Start+i] = id
			}
		}
	})
	return held
}

// hold checks that the blocks of the log's entries are in the file and not those of two entries.
func (c *checker) hold() {
	c.eachSide(func(id layout.CopysetID, e *raftlog.InspectedSide) {
		blocks := int64(0)
		for _, x := range e.Extents {
			blocks += int64(x.Blocks)
			if !c.store.Hold(x.Start, x.Blocks) {
				c.found(Finding{
					Part: PartLog, Copyset: id, Entry: e.Index,
					Text: fmt.Sprintf("its payload at address %d, %d blocks, is outside the data file or another entry's too", x.Start, x.Blocks),
				})
			}
		}
		c.report.Sideloaded += blocks
		if blocks*layout.BlockSize != int64(e.Bytes) {
			c.found(Finding{Part: PartLog, Copyset: id, Entry: e.Index, Text: fmt.Sprintf("%d blocks for a payload of %d bytes", blocks, e.Bytes)})
		}
	})
}

// agree checks that peers, data and log fit together. The error is one that prevents.
func (c *checker) agree() error {
	if c.store == nil {
		return nil
	}
	all := c.store.Copysets()
	c.report.Copysets = len(all)
	slices.SortFunc(all, func(a, b *inspect.Copyset) int { return cmp.Compare(a.ID, b.ID) })
	data := map[layout.CopysetID]*inspect.Copyset{}
	for _, s := range all {
		data[s.ID] = s
		if err := c.state(s); err != nil {
			return err
		}
		if c.peers != nil && (c.peers.Peer(s.ID).State == 0 || c.peers.Peer(s.ID).State == peerlist.Removed) {
			c.found(Finding{Part: PartIndex, Copyset: s.ID, Text: "there is data of it, but no peer"})
		}
	}
	if c.peers == nil {
		return nil
	}
	logs := map[layout.CopysetID]*raftlog.InspectedGroup{}
	if c.log != nil {
		for i := range c.log.Groups {
			logs[c.log.Groups[i].Copyset] = &c.log.Groups[i]
		}
	}
	peers := c.peers.All()
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		p := peers[id]
		if p.State != peerlist.Live {
			continue
		}
		s, g := data[id], logs[id]
		wrong := func(part, format string, args ...any) {
			c.found(Finding{Part: part, Copyset: id, Text: fmt.Sprintf(format, args...)})
		}
		if s == nil {
			wrong(PartIndex, "peer %d has no data", p.Peer)
		}
		switch {
		case c.log == nil: // told already
		case g == nil:
			wrong(PartLog, "peer %d has no log", p.Peer)
		case s == nil:
		case g.Behind > s.Index:
			wrong(PartLog, "its log starts behind entry %d, its data end at %d", g.Behind, s.Index)
		case s.Index <= g.Last && g.Commit > g.Last:
			wrong(PartLog, "its log ends at %d, %d was committed", g.Last, g.Commit)
		}
	}
	return nil
}

// state checks the replicated state that is kept with the data. The error is one that prevents.
func (c *checker) state(s *inspect.Copyset) error {
	if len(s.State) == 0 {
		return nil
	}
	st, err := copyset.Unmarshal(s.State)
	switch {
	case prevents(err):
		return fmt.Errorf("copyset %d: %w", s.ID, err)
	case err != nil:
		c.found(Finding{Part: PartIndex, Copyset: s.ID, Text: fmt.Sprintf("its state can not be read: %v", err)})
		return nil
	}
	if index, term := st.Applied(); index != s.Index || term != s.Term {
		c.found(Finding{
			Part: PartIndex, Copyset: s.ID,
			Text: fmt.Sprintf("its state is of entry %d of term %d, its data of %d of term %d", index, term, s.Index, s.Term),
		})
	}
	return nil
}

// data reads all blocks, of the content and of the log's entries.
func (c *checker) data(ctx context.Context) error {
	total := (c.report.Blocks + c.report.Sideloaded) * layout.BlockSize
	progress := func(blocks int) {
		c.report.Verified += int64(blocks)
		if c.opts.Progress != nil {
			c.opts.Progress(c.report.Verified*layout.BlockSize, total)
		}
	}
	if err := c.store.Verify(ctx, progress, c.foundIndex); err != nil {
		return err
	}
	var buf []byte
	c.eachSide(func(id layout.CopysetID, e *raftlog.InspectedSide) {
		if ctx.Err() != nil {
			return
		}
		if cap(buf) < e.Bytes {
			buf = make([]byte, e.Bytes)
		}
		if err := c.payload(e, buf[:e.Bytes]); err != nil {
			c.found(Finding{Part: PartData, Copyset: id, Entry: e.Index, Text: err.Error()})
		}
		progress(e.Bytes / layout.BlockSize)
	})
	return ctx.Err()
}

// payload reads and verifies the payload of an entry into p.
func (c *checker) payload(e *raftlog.InspectedSide, p []byte) error {
	rest := p
	for _, x := range e.Extents {
		n := int(x.Blocks) * layout.BlockSize
		if n > len(rest) {
			return nil // told already
		}
		if err := c.store.Load(x.Start, rest[:n]); err != nil {
			return fmt.Errorf("its payload at address %d can not be read: %w", x.Start, err)
		}
		rest = rest[n:]
	}
	if len(rest) == 0 && layout.CRC(p) != e.CRC {
		return fmt.Errorf("its payload at address %d, %d bytes, does not fit its checksum", e.Extents[0].Start, e.Bytes)
	}
	return nil
}
