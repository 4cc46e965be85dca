package extent

// Fragments tells how blocks of a chunk lie in the data file. Its zero value is of no blocks.
type Fragments struct {
	// Blocks is how many there are, Pieces in how many pieces they lie: blocks that follow each other in the chunk and in the file
	// are one piece. Least is the least that Pieces can be, because of what is not allocated between them.
	Blocks, Pieces, Least int
	// lastBlock and lastAddr are those of the block that was added last.
	lastBlock uint32
	lastAddr  Addr
}

// Add takes the next block of the chunk that is allocated; they come in order.
func (p *Fragments) Add(block uint32, at Addr) {
	switch {
	case p.Blocks == 0 || p.lastBlock+1 != block:
		p.Least++
		p.Pieces++
	case p.lastAddr+1 != at:
		p.Pieces++
	}
	p.Blocks++
	p.lastBlock, p.lastAddr = block, at
}
