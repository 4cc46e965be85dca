package disk

import (
	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// prefetchMin is the length of a read, in blocks, from which on its pieces are announced.
const prefetchMin = 10

// ReadSpan reads and verifies the blocks of a span, with one read per run of blocks that follow each other in the file.
func (b *File) ReadSpan(id layout.CopysetID, ch layout.ChunkID, sp extent.Span, ents []extent.Entry, dst []byte) error {
	b.prefetch(ents)
	for i := uint32(0); i < sp.N; {
		from, to := sp.Part(i)
		at := sp.At(i)
		switch {
		case ents[i].Addr == 0:
			clear(dst[at : at+int(to-from)])
			i++
		case from != 0 || to != layout.BlockSize:
			whole := b.late.block()
			err := b.ReadVerified(id, ch, sp.First+i, ents[i:i+1], whole[:])
			copy(dst[at:], whole[from:to])
			b.late.free.Put(whole)
			if err != nil {
				return err
			}
			i++
		default:
			n := uint32(1)
			for i+n < sp.N && sp.Whole(i+n) && ents[i+n].Addr == ents[i].Addr+extent.Addr(n) {
				n++
			}
			if err := b.ReadVerified(id, ch, sp.First+i, ents[i:i+n], dst[at:at+int(n)*layout.BlockSize]); err != nil {
				return err
			}
			i += n
		}
	}
	return nil
}

// prefetch has the disk begin with all the runs of a long read that lies in several, for they are read one after the other.
func (b *File) prefetch(ents []extent.Entry) {
	if len(ents) < prefetchMin {
		return
	}
	for from, i := 0, 1; i <= len(ents); i++ {
		if i < len(ents) && (ents[i].Addr == ents[i-1].Addr+1 || ents[i].Addr == 0 && ents[i-1].Addr == 0) {
			continue
		}
		if from == 0 && i == len(ents) {
			return // one run
		}
		if ents[from].Addr != 0 {
			b.Prefetch(ents[from].Addr, uint32(i-from))
		}
		from = i
	}
}

// ReadVerified reads and verifies whole blocks that follow each other in the file and, from block first, in the chunk.
// *extent.ChecksumError names the first that is bad.
func (b *File) ReadVerified(id layout.CopysetID, ch layout.ChunkID, first uint32, ents []extent.Entry, p []byte) error {
	whole := b.Read(ents[0].Addr, p)
	for i, e := range ents {
		block := p[i*layout.BlockSize : (i+1)*layout.BlockSize]
		err := whole
		if err != nil && len(ents) > 1 {
			// Which of the blocks can not be read? Reads may be repeated.
			err = b.Read(e.Addr, block)
		}
		if err != nil || extent.Checksum(block) != e.CRC {
			return &extent.ChecksumError{Copyset: id, Chunk: ch, Block: first + uint32(i), Err: err}
		}
	}
	return nil
}
