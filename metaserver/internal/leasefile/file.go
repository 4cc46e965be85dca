package leasefile

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// name is the file in the data directory.
const name = "lease"

// The wait for the lock: a process that was killed keeps its locks until the last of its threads has left the kernel.
const (
	lockWait = 5 * time.Second
	lockPoll = 20 * time.Millisecond
)

// bootID is where Linux says which boot of the machine this is.
const bootID = "/proc/sys/kernel/random/boot_id"

// InUseError says that another process uses the directory.
type InUseError struct {
	Dir string
}

func (e *InUseError) Error() string {
	return e.Dir + " is in use by another metaserver: stop it, or choose another directory (dir in the configuration)"
}

// File is the lease file of a directory, locked until Close or the end of the process. Its methods are for one goroutine.
type File struct {
	f      *os.File
	here   place
	former Note
	known  bool
}

// Open makes the directory if it is missing, takes the lock, and reads what the process before left. It waits lockWait at
// most for the lock, then returns an *InUseError.
func Open(ctx context.Context, dir string) (*File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("leasefile: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("leasefile: %w", err)
	}
	l := &File{f: f}
	if err = l.lock(ctx, dir); err == nil {
		err = l.read()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// lock takes the lock.
func (l *File) lock(ctx context.Context, dir string) error {
	for deadline := time.Now().Add(lockWait); ; {
		err := unix.Flock(int(l.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("leasefile: locking %s: %w", l.f.Name(), err)
		case time.Now().After(deadline):
			return &InUseError{dir}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// read finds out where the file is and what it says.
func (l *File) read() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &st); err != nil {
		return fmt.Errorf("leasefile: %s: %w", l.f.Name(), err)
	}
	l.here = place{dev: st.Dev, inode: st.Ino}
	text, err := os.ReadFile(bootID)
	if err != nil {
		return nil //nolint:nilerr // where the kernel does not tell, no note is trusted
	}
	boot, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(boot) != len(l.here.boot) {
		return nil //nolint:nilerr // as above
	}
	copy(l.here.boot[:], boot)
	b, err := io.ReadAll(io.NewSectionReader(l.f, 0, sizeMax+1))
	if err != nil {
		return nil //nolint:nilerr // what can not be read is as good as missing
	}
	if p, n, err := decode(b); err == nil && p == l.here {
		l.former, l.known = n, true
	}
	return nil
}

// Former returns the note of the process that used the directory before and has certainly ended; ok is false when there is
// none that can be trusted.
func (l *File) Former() (n Note, ok bool) { return l.former, l.known }

// Keep puts n in the place of what the file says. After an error the file may say either, or nothing.
func (l *File) Keep(n Note) error {
	if l.here.boot == ([16]byte{}) {
		return nil
	}
	b, err := encode(l.here, n)
	if err != nil {
		return err
	}
	if _, err := l.f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("leasefile: %w", err)
	}
	if err := l.f.Truncate(int64(len(b))); err != nil {
		return fmt.Errorf("leasefile: %w", err)
	}
	return nil
}

// Close gives the lock back.
func (l *File) Close() error { return l.f.Close() }
