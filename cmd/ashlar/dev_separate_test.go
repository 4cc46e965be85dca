package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestProcessors(t *testing.T) {
	for _, c := range []struct{ machine, daemons, want int }{{1, 5, 1}, {2, 5, 1}, {4, 5, 2}, {8, 5, 4}, {64, 7, 19}} {
		if got := processors(c.machine, c.daemons); got != c.want {
			t.Errorf("%d daemons on %d processors: %d each, want %d", c.daemons, c.machine, got, c.want)
		}
	}
}

// TestDaemonProcessors: a daemon is told its share, unless the user has said how many processors it is to use.
func TestDaemonProcessors(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"log", "conf"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"gateway-1", "chunkserver-1"} {
		if err := os.WriteFile(filepath.Join(dir, "conf", name+".yaml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		env  string
		said bool
	}{{"", true}, {"3", false}} {
		t.Setenv("GOMAXPROCS", c.env)
		cmd, out, err := daemonProcess("ashlar", dir, "gateway", 1)
		if err != nil {
			t.Fatal(err)
		}
		_ = out.Close()
		if said := slices.ContainsFunc(cmd.Env, func(s string) bool { return len(s) > 11 && s[:11] == "GOMAXPROCS=" }); said != c.said {
			t.Errorf("GOMAXPROCS=%q: %v", c.env, cmd.Env)
		}
	}
}
