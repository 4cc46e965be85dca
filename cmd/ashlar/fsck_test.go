package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/chunkserver"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// fsck runs "ashlar fsck ARGS" and returns what it printed and the exit status.
func fsck(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	root := newRoot()
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(append([]string{"fsck"}, args...))
	err := root.ExecuteContext(t.Context())
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		status = exit.status
	case err != nil:
		t.Fatalf("%v: an error without a status: %v", args, err)
	}
	return stdout.String(), status
}

// TestFsckStatus: the exit status says whether something was found, or could not be checked.
func TestFsckStatus(t *testing.T) {
	dir := t.TempDir()
	cfg := chunkserver.Default()
	cfg.Dir, cfg.Listen, cfg.Reserve = dir, "127.0.0.1:0", 0
	static := &chunkserver.Static{
		Cluster: [16]byte{1}, ID: 1, Addresses: map[layout.ChunkserverID]string{},
		Copysets: map[layout.CopysetID]map[layout.PeerID]layout.ChunkserverID{4: {11: 1}},
	}
	s, err := chunkserver.New(cfg, chunkserver.Options{Static: static})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Started():
	case err := <-done:
		t.Fatal(err)
	}
	if _, status := fsck(t, dir); status != exitUnchecked {
		t.Errorf("of a chunkserver that runs: %d", status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if out, status := fsck(t, dir); status != 0 || !strings.Contains(out, "chunkserver 1: 1 copysets, 0 blocks") || !strings.Contains(out, "clean") {
		t.Errorf("%d: %s", status, out)
	}
	if err := os.Truncate(dir+"/PEERS", 30); err != nil {
		t.Fatal(err)
	}
	if out, status := fsck(t, dir, "--no-data", "-o", "json"); status != exitFindings || !strings.Contains(out, `"part": "identity"`) {
		t.Errorf("%d: %s", status, out)
	}
	if out, status := fsck(t, dir); status != exitFindings || !strings.Contains(out, "1 findings") {
		t.Errorf("%d: %s", status, out)
	}
	for _, args := range [][]string{{}, {t.TempDir()}, {dir, "-o", "xml"}, {dir, "--nonsense"}, {dir, dir}} {
		if _, status := fsck(t, args...); status != exitUnchecked {
			t.Errorf("%v: %d", args, status)
		}
	}
}
