package heartbeat

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/smallfile"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// The generation is the small file GENERATION (magic "ashlargn", version 1) with a number of 8 bytes, little endian. It rises
// when a metaserver has answered for the first time since the start, and from then on each generationEvery. The metaserver
// remembers the highest that it was told. A lower one shows that the directory is a copy of an earlier time: it lacks votes
// and entries that this chunkserver has answered for, and must not serve. A copy that was made since the last rise is not found out.
type generation struct {
	file   smallfile.File
	number atomic.Uint64
	raised atomic.Pointer[time.Time]
}

const (
	// generationEvery is the time between two rises.
	generationEvery = time.Minute
	// generationFirst is that of a directory without the file.
	generationFirst = 1
)

func (g *generation) open(fs vfs.FS, dir string) error {
	g.file = smallfile.File{FS: fs, Dir: dir, Name: "GENERATION", Magic: "ashlargn", Version: 1}
	g.number.Store(generationFirst)
	b, err := g.file.Read()
	switch {
	case err != nil:
		return fmt.Errorf("chunkserver: %w", err)
	case b == nil:
		return nil
	case len(b) != 8:
		return fmt.Errorf("chunkserver: %w", &smallfile.DamagedError{Path: dir + "/GENERATION"})
	}
	g.number.Store(binary.LittleEndian.Uint64(b))
	return nil
}

// Generation returns how far the directory has come; it is on the disk.
func (i *Identity) Generation() uint64 { return i.generation.number.Load() }

// due tells whether the generation is to rise.
func (g *generation) due() bool {
	at := g.raised.Load()
	return at == nil || time.Since(*at) >= generationEvery
}

// rise makes the next generation durable, if it is due. One goroutine calls it.
func (g *generation) rise() error {
	if !g.due() {
		return nil
	}
	next := g.number.Load() + 1
	if err := g.file.Replace(binary.LittleEndian.AppendUint64(nil, next)); err != nil {
		return fmt.Errorf("chunkserver: generation: %w", err)
	}
	g.number.Store(next)
	g.raised.Store(new(time.Now()))
	return nil
}
