// Package peerlist keeps which copysets a disk has peers of, and how far the creation or removal of each got, so that a
// crash in the middle can be undone or finished.
//
// The list is the small file PEERS (magic "ashlarpr", version 1) with the record (little endian)
//
//	0  4  n
//	4     n × copyset:8 peer:8 state:1, sorted by copyset
package peerlist

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/smallfile"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// Name is the file's name.
const Name = "PEERS"

const entrySize = 17

// State is how far a peer's creation or removal got. The numbers are part of the format.
type State uint8

// The states; the zero State is that of no peer.
const (
	// Creating: store and log may be half made; a crash undoes it.
	Creating State = 1
	Live     State = 2
	// Removing: a crash finishes it.
	Removing State = 3
	// Removed: the id never comes back.
	Removed State = 4
	// Distrusted: its content is not what it should be; it takes part in nothing until it is removed.
	Distrusted State = 5
)

// Record is the peer of one copyset.
type Record struct {
	Peer  layout.PeerID
	State State
}

// List is the list of one disk. It is safe for use by several goroutines.
type List struct {
	file smallfile.File
	mu   struct {
		sync.Mutex
		peers map[layout.CopysetID]Record
	}
}

// Open reads the list in dir; there need not be one.
func Open(fs vfs.FS, dir string) (*List, error) {
	l := &List{file: smallfile.File{FS: fs, Dir: dir, Name: Name, Magic: "ashlarpr", Version: 1}}
	l.mu.peers = map[layout.CopysetID]Record{}
	b, err := l.file.Read()
	if err != nil {
		return nil, fmt.Errorf("peerlist: %w", err)
	}
	if b == nil {
		return l, nil
	}
	le := binary.LittleEndian
	if len(b) < 4 || len(b) != 4+entrySize*int(le.Uint32(b)) {
		return nil, errors.New("peerlist: the list is damaged")
	}
	for b = b[4:]; len(b) > 0; b = b[entrySize:] {
		l.mu.peers[layout.CopysetID(le.Uint64(b))] = Record{layout.PeerID(le.Uint64(b[8:])), State(b[16])}
	}
	return l, nil
}

// Set records the peer of a copyset, durably. After an error the list is as it was.
func (l *List) Set(id layout.CopysetID, r Record) error {
	l.mu.Lock()
	defer l.mu.Unlock() // held across I/O: changes are rare, and their order on disk is that of the calls
	next := maps.Clone(l.mu.peers)
	next[id] = r
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(next)))
	for _, id := range slices.SortedFunc(maps.Keys(next), cmp.Compare) {
		b = append(le.AppendUint64(le.AppendUint64(b, uint64(id)), uint64(next[id].Peer)), byte(next[id].State))
	}
	if err := l.file.Replace(b); err != nil {
		return fmt.Errorf("peerlist: %w", err)
	}
	l.mu.peers = next
	return nil
}

// Peer returns the record of a copyset, zero when there is none.
func (l *List) Peer(id layout.CopysetID) Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.peers[id]
}

// All returns all records. The map is the caller's.
func (l *List) All() map[layout.CopysetID]Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.mu.peers)
}
