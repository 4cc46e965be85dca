// Package fsck checks a chunkserver's data directory while no chunkserver has it, and changes nothing:
//
//	identity  CHUNKSERVER, PEERS and the store's IDENTITY can be read and name the same chunkserver
//	log       every record of the raft log verifies, its batches and segments continue each other; each live peer has a log that
//	          goes on where its data end
//	index     every extent map can be read, those of versions too; what one shares with an older one that one has; no block is
//	          in use twice, outside the data file, or in an entry of another copyset or of two entries
//	data      every block, and every payload that the log keeps in the data file, fits its checksum
//
// What it finds does not say which replica is right: a chunkserver repairs damaged blocks by itself (package scrub), and what
// else is wrong has its peers replaced.
package fsck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/copyset"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/heartbeat"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/peerlist"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/smallfile"
	"github.com/ashlar-storage/ashlar/storage/blockstore/inspect"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/raftlog"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// findingsMax bounds the findings that a Report lists.
const findingsMax = 10000

// Options say what to check.
type Options struct {
	FS vfs.FS
	// IndexFS is the file system of the index; nil: the operating system's.
	IndexFS pebblevfs.FS
	// Data has the blocks read too.
	Data bool
	// Progress, if set, is told how many bytes of how many were read.
	Progress func(done, total int64)
}

// The parts of a directory.
const (
	PartIdentity = "identity"
	PartLog      = "log"
	PartIndex    = "index"
	PartData     = "data"
)

// Finding is something that is wrong.
type Finding struct {
	Part string `json:"part"`
	// Copyset is 0 when it is not known or not one.
	Copyset layout.CopysetID `json:"copyset"`
	// At is the block, Entry the index of the entry in the copyset's log; nil and 0 when it is none.
	At    *Block `json:"at"`
	Entry uint64 `json:"entry"`
	Text  string `json:"problem"`
}

// Block is where a block is.
type Block struct {
	Volume layout.VolumeID `json:"volume"`
	Chunk  uint32          `json:"chunk"`
	// Block is its number within the chunk, Address that within the data file.
	Block   uint32 `json:"block"`
	Address uint64 `json:"address"`
}

func (f Finding) String() string {
	text := f.Part
	if f.Copyset != 0 {
		text += fmt.Sprintf(": copyset %d", f.Copyset)
	}
	if f.At != nil {
		text += fmt.Sprintf(": volume %d chunk %d block %d (address %d)", f.At.Volume, f.At.Chunk, f.At.Block, f.At.Address)
	}
	if f.Entry != 0 {
		text += fmt.Sprintf(": entry %d", f.Entry)
	}
	return text + ": " + f.Text
}

// Report is what was checked and found.
type Report struct {
	Dir         string               `json:"dir"`
	Cluster     string               `json:"cluster"`
	Chunkserver layout.ChunkserverID `json:"chunkserver"`
	Copysets    int                  `json:"copysets"`
	Segments    int                  `json:"log_segments"`
	// Blocks is how many blocks the content and its versions have, Sideloaded how many more the log's entries name; Verified of
	// them were read.
	Blocks     int64 `json:"blocks"`
	Sideloaded int64 `json:"sideloaded_blocks"`
	Verified   int64 `json:"verified_blocks"`
	// Total is the number of findings, of which findingsMax are listed.
	Total    int       `json:"findings_total"`
	Findings []Finding `json:"findings"`
}

// checker is one check.
type checker struct {
	opts   Options
	fs     vfs.FS
	report *Report
	id     *heartbeat.Identity // nil: it can not be read
	peers  *peerlist.List      // nil: it can not be read
	log    *raftlog.Inspected  // nil: it can not be read
	store  *inspect.Store      // nil: it can not be read
}

// Run checks the directory. An error means that it could not: it is in use, is no data directory, was written by a newer
// release, this process may not read it or has too many files open, or ctx ended.
func Run(ctx context.Context, dir string, opts Options) (*Report, error) {
	c := &checker{opts: opts, fs: readOnly{opts.FS}, report: &Report{Dir: dir, Findings: []Finding{}}}
	if _, err := opts.FS.Stat(dir + "/CHUNKSERVER"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is not the data directory of a chunkserver: it has no file CHUNKSERVER", dir)
		}
		return nil, err
	}
	unlock, err := lock(opts.FS, dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.identity(); err != nil {
		return nil, err
	}
	if err := c.readLog(); err != nil {
		return nil, err
	}
	if err := c.openStore(); err != nil {
		return nil, err
	}
	if c.store != nil {
		defer c.store.Close() //nolint:errcheck // only read
		if err := c.store.Walk(ctx, c.held(), c.foundIndex); err != nil {
			return nil, err
		}
		c.report.Blocks = c.store.Blocks()
		c.hold()
	}
	if err := c.agree(); err != nil {
		return nil, err
	}
	if c.store != nil && opts.Data {
		if err := c.data(ctx); err != nil {
			return nil, err
		}
	}
	return c.report, ctx.Err()
}

func (c *checker) found(f Finding) {
	if c.report.Total++; len(c.report.Findings) < findingsMax {
		c.report.Findings = append(c.report.Findings, f)
	}
}

func (c *checker) foundIndex(f inspect.Finding) {
	out := Finding{Part: PartIndex, Copyset: f.Copyset, Text: f.Text}
	if f.Data {
		out.Part = PartData
	}
	if f.Version != 0 {
		out.Text += fmt.Sprintf(" (of version %d of the volume)", f.Version)
	}
	if f.Located {
		out.At = &Block{Volume: f.Chunk.Volume, Chunk: f.Chunk.Index, Block: f.Block, Address: f.Addr}
	}
	c.found(out)
}

// prevents tells whether an error is not about damage, but says that the directory can not be checked.
func prevents(err error) bool {
	return inspect.Prevents(err) || errors.As(err, new(*raftlog.VersionError)) || errors.As(err, new(*smallfile.VersionError)) ||
		errors.Is(err, copyset.ErrVersion)
}

// identity reads who the directory is and which peers it has.
func (c *checker) identity() error {
	var err error
	if c.id, err = heartbeat.OpenIdentity(c.fs, c.report.Dir); prevents(err) {
		return err
	} else if err != nil {
		c.id = nil
		c.found(Finding{Part: PartIdentity, Text: err.Error()})
	} else {
		cluster := c.id.Cluster()
		c.report.Chunkserver, c.report.Cluster = c.id.Chunkserver(), fmt.Sprintf("%x", cluster[:])
	}
	if c.peers, err = peerlist.Open(c.fs, c.report.Dir); prevents(err) {
		return err
	} else if err != nil {
		c.peers = nil
		c.found(Finding{Part: PartIdentity, Text: err.Error()})
	}
	return nil
}

// readLog reads the raft log. An error is one that prevents.
func (c *checker) readLog() error {
	if c.id == nil {
		c.found(Finding{Part: PartLog, Text: "not checked: it can not be read without the identity"})
		return nil
	}
	in, err := raftlog.Inspect(c.fs, c.report.Dir+"/log", c.id.UUID())
	var corrupt *raftlog.CorruptError
	switch {
	case err == nil:
		c.log, c.report.Segments = in, in.Segments
	case prevents(err):
		return err
	case errors.As(err, &corrupt):
		c.found(Finding{Part: PartLog, Copyset: corrupt.Copyset, Text: err.Error()})
	case c.empty() && (errors.Is(err, raftlog.ErrNoLog) || errors.Is(err, fs.ErrNotExist)):
	default:
		c.found(Finding{Part: PartLog, Text: err.Error()})
	}
	return nil
}

// empty tells that the directory has never had a peer: then log and store need not be there.
func (c *checker) empty() bool { return c.peers != nil && len(c.peers.All()) == 0 }

// openStore opens the block store. An error is one that prevents.
func (c *checker) openStore() (err error) {
	if _, err := c.fs.Stat(c.report.Dir + "/store/IDENTITY"); errors.Is(err, fs.ErrNotExist) && c.empty() {
		return nil
	}
	c.store, err = inspect.Open(c.fs, c.report.Dir+"/store", c.opts.IndexFS)
	switch {
	case err == nil:
	case prevents(err):
		return err
	default:
		c.store = nil
		c.found(Finding{Part: PartIndex, Text: err.Error()})
		return nil
	}
	if cluster, cs := c.store.Owner(); c.id != nil && (cluster != c.id.Cluster() || cs != c.id.Chunkserver()) {
		c.found(Finding{Part: PartIdentity, Text: fmt.Sprintf("the store is that of chunkserver %d of cluster %x", cs, cluster)})
	}
	return nil
}
