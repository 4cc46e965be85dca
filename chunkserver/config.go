package chunkserver

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// Config configures a chunkserver.
type Config struct {
	// Dir is the data directory, on the disk that the chunkserver owns.
	Dir string `yaml:"dir"`
	// Listen is the address for gateways and other chunkservers, HOST:PORT.
	Listen string `yaml:"listen"`
	// Advertise is how others reach Listen, HOST:PORT. Empty: the address listened on.
	Advertise string `yaml:"advertise"`
	// Metaservers are the HOST:PORT of all metaservers.
	Metaservers []string `yaml:"metaservers"`
	// Pool, Zone and Server are the place in the topology. Peers of one copyset are in different zones.
	Pool   string `yaml:"pool"`
	Zone   string `yaml:"zone"`
	Server string `yaml:"server"`
	// Capacity is the most space for data, in bytes; 0: what the file system has.
	Capacity int64 `yaml:"capacity-bytes"`
	// Reserve is the free space that data leaves alone, in bytes; it keeps room for log and index.
	Reserve int64 `yaml:"reserve-bytes"`
	// Tick is raft's clock; a follower without a leader campaigns after ElectionTicks to twice as many. All
	// chunkservers of a cluster have the same: the read lease is computed from them.
	Tick          time.Duration `yaml:"tick"`
	ElectionTicks int           `yaml:"election-ticks"`
	// QuietAfter is after what time without reads and writes a copyset goes quiet: it costs nothing then, and its next read
	// waits for one round trip between chunkservers. 0: never.
	QuietAfter time.Duration `yaml:"quiet-after"`
	// CheckpointEvery bounds the time, and LogBytes the disk space in bytes, that a restart may have to replay.
	CheckpointEvery time.Duration `yaml:"checkpoint-every"`
	LogBytes        int64         `yaml:"log-bytes"`
	// Readers is how many reads are served at a time, less those that the goroutines of the streams serve.
	Readers int `yaml:"readers"`
	// Scrub says how the disk's blocks are read to find damage.
	Scrub Scrub `yaml:"scrub"`
	// Compaction says how what lies scattered on the disk is gathered.
	Compaction Compaction `yaml:"compaction"`
}

// Scrub configures the scrub.
type Scrub struct {
	// Interval is the time within which every block is read and verified; 0: only when it is asked for.
	Interval time.Duration `yaml:"interval"`
	// RateMax is the most that is read for it, in bytes per second.
	RateMax int64 `yaml:"rate-max-bytes"`
}

// Compaction configures the compaction.
type Compaction struct {
	// RateMax is the most that is read and written for it, in bytes per second; 0: nothing is moved.
	RateMax int64 `yaml:"rate-max-bytes"`
}

// Options are what the process gives to a chunkserver. The zero value is usable.
type Options struct {
	// Log may be nil.
	Log *zap.Logger
	// Registry takes the metrics, until Run returns; nil: there are none.
	Registry prometheus.Registerer
	// Version and AdminAddress are what the cluster is told.
	Version, AdminAddress string
	// FS is the file system of everything but the index; nil: the operating system's.
	FS vfs.FS
	// Static, if set, takes the place of metaservers: for tests and measurements.
	Static *Static
}

// Static is a cluster without a metaserver.
type Static struct {
	Cluster [16]byte
	ID      layout.ChunkserverID
	// Addresses are those of all chunkservers.
	Addresses map[layout.ChunkserverID]string
	// Copysets are made at start: each with its peers and where they are.
	Copysets map[layout.CopysetID]map[layout.PeerID]layout.ChunkserverID
}

// Default returns the configuration that a chunkserver has unless its file says otherwise.
func Default() Config {
	return Config{
		Dir: "/var/lib/ashlar/chunkserver", Listen: "127.0.0.1:7500", Metaservers: []string{"127.0.0.1:7400"},
		Pool: "default", Zone: "zone-1", Server: "server-1",
		Reserve: blockstore.DefaultReserve,
		Tick:    100 * time.Millisecond, ElectionTicks: 8, QuietAfter: 10 * time.Second,
		CheckpointEvery: 30 * time.Second, LogBytes: 1 << 30,
		Readers:    16,
		Scrub:      Scrub{Interval: 7 * 24 * time.Hour, RateMax: 64 << 20},
		Compaction: Compaction{RateMax: 16 << 20},
	}
}

// segmentSize is that of the raft log's files, in bytes.
const segmentSize = 64 << 20

// scrubIntervalMax is the longest Scrub.Interval.
const scrubIntervalMax = 366 * 24 * time.Hour

// Validate reports the first value that can not be used, naming its key.
func (c *Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("dir: a chunkserver needs a data directory")
	case c.Listen == "":
		return errors.New("listen: a HOST:PORT is needed")
	case len(c.Metaservers) == 0:
		return errors.New("metaservers: at least one HOST:PORT is needed")
	case c.Pool == "" || c.Zone == "" || c.Server == "":
		return errors.New("pool, zone, server: all three are needed")
	case c.Tick < time.Millisecond || c.Tick > 10*time.Second:
		return fmt.Errorf("tick: %v is not in [1ms, 10s]", c.Tick)
	case c.ElectionTicks < 3 || c.ElectionTicks > 1000:
		return fmt.Errorf("election-ticks: %d is not in [3, 1000]", c.ElectionTicks)
	case c.QuietAfter != 0 && c.QuietAfter < time.Duration(c.ElectionTicks)*c.Tick:
		return fmt.Errorf("quiet-after: %v is neither 0 nor at least %d ticks of %v", c.QuietAfter, c.ElectionTicks, c.Tick)
	case c.CheckpointEvery < 10*time.Millisecond:
		return fmt.Errorf("checkpoint-every: %v is less than 10ms", c.CheckpointEvery)
	case c.LogBytes < 4*segmentSize:
		return fmt.Errorf("log-bytes: %d is less than %d", c.LogBytes, 4*segmentSize)
	case c.Readers < 1 || c.Readers > 4096:
		return fmt.Errorf("readers: %d is not in [1, 4096]", c.Readers)
	case c.Scrub.Interval != 0 && (c.Scrub.Interval < time.Minute || c.Scrub.Interval > scrubIntervalMax):
		return fmt.Errorf("scrub.interval: %v is neither 0 nor in [1m, %v]", c.Scrub.Interval, scrubIntervalMax)
	case c.Scrub.RateMax < 64<<10:
		return fmt.Errorf("scrub.rate-max-bytes: %d is less than %d", c.Scrub.RateMax, 64<<10)
	case c.Compaction.RateMax != 0 && c.Compaction.RateMax < 64<<10:
		return fmt.Errorf("compaction.rate-max-bytes: %d is neither 0 nor at least %d", c.Compaction.RateMax, 64<<10)
	case c.Capacity < 0:
		return fmt.Errorf("capacity-bytes: %d", c.Capacity)
	case c.Reserve < 0 || c.Capacity > 0 && c.Reserve >= c.Capacity:
		return fmt.Errorf("reserve-bytes: %d of a capacity of %d", c.Reserve, c.Capacity)
	}
	for key, list := range map[string][]string{"listen": {c.Listen}, "advertise": {c.Advertise}, "metaservers": c.Metaservers} {
		for _, a := range list {
			if a == "" && key == "advertise" {
				continue
			}
			if _, _, err := net.SplitHostPort(a); err != nil {
				return fmt.Errorf("%s: %q is not HOST:PORT: %w", key, a, err)
			}
		}
	}
	return nil
}
