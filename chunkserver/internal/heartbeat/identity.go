package heartbeat

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/smallfile"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/vfs"
)

// The identity is the small file CHUNKSERVER (magic "ashlarcs", version 1) with the record (little endian)
//
//	 0 16  uuid: random, made when the directory is first used
//	16 16  cluster, zero until registered
//	32  8  chunkserver, 0 until registered
//	40  8  the highest election revision seen
//	48  4  n
//	52     n × (chunkserver:8 length:2 address), where the others were last, sorted
const (
	identityHeader = 52
	addressesMax   = 4096
	addressMax     = 512
)

// ForeignError means that the directory belongs to another cluster than the one it is to serve.
type ForeignError struct {
	Dir        string
	Have, Want [16]byte
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("chunkserver: %s belongs to cluster %x, not to %x; give it another directory, or the metaservers of its cluster", e.Dir, e.Have, e.Want)
}

// Identity is who a data directory is. What it tells does not wait for the disk, even while something is stored.
type Identity struct {
	file smallfile.File
	// storing lets one change be made at a time; held across I/O, so that their order on disk is that of the calls.
	storing    sync.Mutex
	now        atomic.Pointer[record]
	generation generation
}

type record struct {
	uuid, cluster [16]byte
	id            layout.ChunkserverID
	revision      int64
	addresses     map[layout.ChunkserverID]string
}

// OpenIdentity reads the identity in dir, and makes a new one when there is none.
func OpenIdentity(fs vfs.FS, dir string) (*Identity, error) {
	i := &Identity{file: smallfile.File{FS: fs, Dir: dir, Name: "CHUNKSERVER", Magic: "ashlarcs", Version: 1}}
	r := &record{addresses: map[layout.ChunkserverID]string{}}
	i.now.Store(r)
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("chunkserver: %w", err)
	}
	if err := i.generation.open(fs, dir); err != nil {
		return nil, err
	}
	b, err := i.file.Read()
	if err != nil {
		return nil, fmt.Errorf("chunkserver: %w", err)
	}
	if b == nil {
		return i, i.update(func(r *record) { _, _ = rand.Read(r.uuid[:]) }) // Read never fails
	}
	if !r.parse(b) {
		return nil, fmt.Errorf("chunkserver: the identity in %s is damaged", dir)
	}
	return i, nil
}

func (r *record) parse(b []byte) bool {
	le := binary.LittleEndian
	if len(b) < identityHeader {
		return false
	}
	copy(r.uuid[:], b)
	copy(r.cluster[:], b[16:])
	r.id, r.revision = layout.ChunkserverID(le.Uint64(b[32:])), int64(le.Uint64(b[40:]))
	n := le.Uint32(b[48:])
	for b = b[identityHeader:]; n > 0; n-- {
		if len(b) < 10 || len(b) < 10+int(le.Uint16(b[8:])) {
			return false
		}
		end := 10 + int(le.Uint16(b[8:]))
		r.addresses[layout.ChunkserverID(le.Uint64(b))] = string(b[10:end])
		b = b[end:]
	}
	return len(b) == 0
}

func (r *record) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, identityHeader), r.uuid[:]...)
	b = append(b, r.cluster[:]...)
	b = le.AppendUint64(b, uint64(r.id))
	b = le.AppendUint64(b, uint64(r.revision))
	b = le.AppendUint32(b, uint32(len(r.addresses)))
	for _, id := range slices.SortedFunc(maps.Keys(r.addresses), cmp.Compare) {
		b = le.AppendUint16(le.AppendUint64(b, uint64(id)), uint16(len(r.addresses[id])))
		b = append(b, r.addresses[id]...)
	}
	return b
}

// update changes the record and makes it durable; on an error it is as before.
func (i *Identity) update(change func(*record)) error {
	i.storing.Lock()
	defer i.storing.Unlock()
	next := *i.now.Load()
	next.addresses = maps.Clone(next.addresses)
	change(&next)
	if err := i.file.Replace(next.encode()); err != nil {
		return fmt.Errorf("chunkserver: identity: %w", err)
	}
	i.now.Store(&next)
	return nil
}

func (i *Identity) record() *record { return i.now.Load() }

// UUID names the directory, from its first use on.
func (i *Identity) UUID() [16]byte { return i.record().uuid }

// Cluster and Chunkserver return what the directory was given; zero until then.
func (i *Identity) Cluster() [16]byte { return i.record().cluster }

// Chunkserver returns the id, 0 until registered.
func (i *Identity) Chunkserver() layout.ChunkserverID { return i.record().id }

// Revision returns the highest election revision seen.
func (i *Identity) Revision() int64 { return i.record().revision }

// Addresses returns where the chunkservers were last. The map is not to be changed.
func (i *Identity) Addresses() map[layout.ChunkserverID]string { return i.record().addresses }

// Claim gives the directory to a chunkserver of a cluster. *ForeignError when it belongs to another cluster.
func (i *Identity) Claim(cluster [16]byte, id layout.ChunkserverID) error {
	r := i.record()
	switch {
	case r.cluster != [16]byte{} && r.cluster != cluster:
		return &ForeignError{Dir: i.file.Dir, Have: r.cluster, Want: cluster}
	case id == 0 || r.id != 0 && r.id != id:
		return fmt.Errorf("chunkserver: %s is chunkserver %d, not %d", i.file.Dir, r.id, id)
	case r.id == id:
		return nil
	}
	return i.update(func(r *record) { r.cluster, r.id = cluster, id })
}

// raise makes the revision durable if it is the highest, and tells whether orders of it may be obeyed.
func (i *Identity) raise(revision int64) (bool, error) {
	have := i.Revision()
	if revision <= have {
		return revision == have, nil
	}
	return true, i.update(func(r *record) { r.revision = max(r.revision, revision) })
}

// news tells whether learn would keep something.
func (i *Identity) news(addresses map[layout.ChunkserverID]string) bool {
	have := i.Addresses()
	for id, a := range addresses {
		if old, ok := have[id]; old != a && len(a) <= addressMax && (ok || len(have) < addressesMax) {
			return true
		}
	}
	return false
}

// learn keeps new addresses.
func (i *Identity) learn(addresses map[layout.ChunkserverID]string) error {
	if !i.news(addresses) {
		return nil
	}
	return i.update(func(r *record) {
		for id, a := range addresses {
			if _, ok := r.addresses[id]; len(a) <= addressMax && (ok || len(r.addresses) < addressesMax) {
				r.addresses[id] = a
			}
		}
	})
}
