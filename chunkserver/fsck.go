package chunkserver

import (
	"context"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/fsck"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// FsckReport is what Fsck checked and found.
type FsckReport = fsck.Report

// Fsck checks a data directory that no chunkserver has, and changes nothing; with data all blocks are read too, and progress,
// if not nil, is told how many bytes of how many. An error means that it could not check.
func Fsck(ctx context.Context, dir string, data bool, progress func(done, total int64)) (*FsckReport, error) {
	return fsck.Run(ctx, dir, fsck.Options{FS: vfs.OS(), Data: data, Progress: progress})
}
