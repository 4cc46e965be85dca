package multiraft

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// The list of peers is the file PEERS, written to PEERS.tmp, synced and renamed (little endian):
//
//	 0  8  magic "ashlarpr"
//	 8  4  version, 1
//	12  4  n
//	16     n × copyset:8 peer:8 state:1, sorted
//	 …  4  CRC32C of all before
const (
	manifestName    = "PEERS"
	manifestMagic   = "ashlarpr"
	manifestVersion = 1
)

// peerState is how far a peer's creation or removal got.
type peerState uint8

const (
	peerCreating peerState = 1 // store and log may be half made: a crash undoes it
	peerLive     peerState = 2
	peerRemoving peerState = 3 // a crash finishes it
	peerRemoved  peerState = 4 // the id never comes back
)

type peerRecord struct {
	peer  layout.PeerID
	state peerState
}

// manifest is the list of the peers on this disk.
type manifest struct {
	fs  vfs.FS
	dir string
	mu  struct {
		sync.Mutex
		peers map[layout.CopysetID]peerRecord
	}
}

func openManifest(fsys vfs.FS, dir string) (*manifest, error) {
	m := &manifest{fs: fsys, dir: dir}
	m.mu.peers = map[layout.CopysetID]peerRecord{}
	f, err := fsys.Open(dir+"/"+manifestName, vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("multiraft: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("multiraft: %w", err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("multiraft: %s: %w", manifestName, err)
	}
	return m, m.parse(b)
}

func (m *manifest) parse(b []byte) error {
	le := binary.LittleEndian
	if len(b) < 20 || string(b[:8]) != manifestMagic || layout.CRC(b[:len(b)-4]) != le.Uint32(b[len(b)-4:]) {
		return fmt.Errorf("multiraft: %s is damaged", manifestName)
	}
	if v := le.Uint32(b[8:]); v != manifestVersion {
		return fmt.Errorf("multiraft: %s has version %d, this release knows %d", manifestName, v, manifestVersion)
	}
	n := int(le.Uint32(b[12:]))
	if len(b) != 20+17*n {
		return fmt.Errorf("multiraft: %s is damaged", manifestName)
	}
	for i := range n {
		r := b[16+17*i:]
		m.mu.peers[layout.CopysetID(le.Uint64(r))] = peerRecord{layout.PeerID(le.Uint64(r[8:])), peerState(r[16])}
	}
	return nil
}

// set records the peer of a copyset, durably.
func (m *manifest) set(id layout.CopysetID, r peerRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock() // rare, and the order of the files written is that of the calls
	old, had := m.mu.peers[id]
	m.mu.peers[id] = r
	err := m.writeLocked()
	if err != nil {
		if delete(m.mu.peers, id); had {
			m.mu.peers[id] = old
		}
		return fmt.Errorf("multiraft: %s: %w", manifestName, err)
	}
	return nil
}

func (m *manifest) get(id layout.CopysetID) peerRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.peers[id]
}

func (m *manifest) all() map[layout.CopysetID]peerRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.mu.peers)
}

func (m *manifest) writeLocked() error {
	le := binary.LittleEndian
	b := append([]byte(manifestMagic), 0, 0, 0, 0, 0, 0, 0, 0)
	le.PutUint32(b[8:], manifestVersion)
	le.PutUint32(b[12:], uint32(len(m.mu.peers)))
	for _, id := range slices.SortedFunc(maps.Keys(m.mu.peers), cmp.Compare) {
		r := m.mu.peers[id]
		b = append(le.AppendUint64(le.AppendUint64(b, uint64(id)), uint64(r.peer)), byte(r.state))
	}
	b = le.AppendUint32(b, layout.CRC(b))
	tmp := m.dir + "/" + manifestName + ".tmp"
	f, err := m.fs.Open(tmp, vfs.CreateMissing)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(0), writeAll(f, b), f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := m.fs.Rename(tmp, m.dir+"/"+manifestName); err != nil {
		return err
	}
	return vfs.SyncDir(m.fs, m.dir)
}

func writeAll(f vfs.File, b []byte) error {
	_, err := f.WriteAt(b, 0)
	return err
}
