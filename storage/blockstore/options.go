package blockstore

import (
	"fmt"
	"io"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/frame"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Options configure a Store. DefaultOptions gives the values that are meant for production; the zero value of a field
// means what is said there.
type Options struct {
	// Capacity is the most that the data file may grow to, in bytes. 0: as far as the file system has space.
	Capacity int64
	// Reserve is the free space, in bytes, that writes leave alone: it is kept for the index, the raft log and the
	// blocks that checkpoints need to give space back. 0: no reserve.
	Reserve int64
	// GrowStep is by how much the data file grows at a time, in bytes. 0: the default.
	GrowStep int64
	// CacheSize bounds the clean leaves kept in memory, in bytes. 0: the default.
	CacheSize int64
	// IndexCacheSize bounds Pebble's block cache, in bytes. 0: the default.
	IndexCacheSize int64
	// DeferBelow is the length, in bytes, below which a write stays in memory until the next checkpoint, which brings all
	// such writes to the data file at once. 0: the default. Negative: none does.
	DeferBelow int
	// DeferredBytes is the memory of such writes at which a checkpoint is asked for (Store.Pressure), in bytes. At twice
	// that writes go to the data file at once. 0: the default.
	DeferredBytes int64
	// FlushWriters is how many writes of a checkpoint are under way at a time; with 1 the store has no goroutines but Pebble's. 0: the default.
	FlushWriters int
	// IndexFS is the file system of the index. nil: the operating system's.
	IndexFS pebblevfs.FS
	// Random gives the store's own identifier when it is created. nil: crypto/rand.
	Random io.Reader
	// Logger gets the few events of the store: growth, poisoning. nil: none.
	Logger *zap.Logger
}

// Limits and defaults of Options.
const (
	// DefaultReserve is Reserve in DefaultOptions.
	DefaultReserve = 1 << 30
	// DefaultGrowStep is GrowStep in DefaultOptions.
	DefaultGrowStep = 256 << 20
	// DefaultCacheSize is CacheSize in DefaultOptions: the maps of about 80 GiB of data.
	DefaultCacheSize = 256 << 20
	// DefaultIndexCacheSize is IndexCacheSize in DefaultOptions.
	DefaultIndexCacheSize = 32 << 20
	// DefaultDeferBelow is DeferBelow in DefaultOptions.
	DefaultDeferBelow = 64 << 10
	// DefaultDeferredBytes is DeferredBytes in DefaultOptions.
	DefaultDeferredBytes = 64 << 20
	// GrowStepMin and GrowStepMax bound GrowStep.
	GrowStepMin = 1 << 20
	GrowStepMax = 64 << 30
	// StateMax is the most that a copyset's state may be, in bytes.
	StateMax = frame.StateMax
)

// DefaultOptions returns the options that are meant for production.
func DefaultOptions() Options {
	return Options{
		Reserve: DefaultReserve, GrowStep: DefaultGrowStep, CacheSize: DefaultCacheSize,
		IndexCacheSize: DefaultIndexCacheSize, DeferBelow: DefaultDeferBelow, DeferredBytes: DefaultDeferredBytes,
	}
}

// Validate reports the first field that is out of its range.
func (o *Options) Validate() error {
	switch {
	case o.Capacity < 0 || o.Capacity > 0 && o.Capacity < 2*layout.BlockSize:
		return fmt.Errorf("blockstore: capacity %d", o.Capacity)
	case o.Reserve < 0 || o.Capacity > 0 && o.Reserve >= o.Capacity:
		return fmt.Errorf("blockstore: reserve %d of capacity %d", o.Reserve, o.Capacity)
	case o.GrowStep != 0 && (o.GrowStep < GrowStepMin || o.GrowStep > GrowStepMax):
		return fmt.Errorf("blockstore: grow step %d is not in [%d, %d]", o.GrowStep, GrowStepMin, int64(GrowStepMax))
	case o.DeferredBytes < 0:
		return fmt.Errorf("blockstore: deferred bytes %d", o.DeferredBytes)
	case o.CacheSize < 0 || o.IndexCacheSize < 0:
		return fmt.Errorf("blockstore: cache sizes %d, %d", o.CacheSize, o.IndexCacheSize)
	}
	return nil
}
