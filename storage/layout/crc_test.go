package layout

import (
	"math/rand/v2"
	"testing"
)

// TestJoinCRCs: the checksum of blocks is that of them all.
func TestJoinCRCs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 9*BlockSize)
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	for n := 0; n <= len(p); n += BlockSize {
		if got, want := JoinCRCs(AppendCRCs(nil, p[:n], 0)), CRC(p[:n]); got != want {
			t.Errorf("%d blocks: %#x, not %#x", n/BlockSize, got, want)
		}
	}
}
