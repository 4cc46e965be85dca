package heartbeat

import (
	"cmp"
	"crypto/rand"
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

// The identity is the file CHUNKSERVER, written to CHUNKSERVER.tmp, synced and renamed (little endian):
//
//	 0  8  magic "ashlarcs"
//	 8  4  version, 1
//	12  4  zero
//	16 16  uuid: random, made when the directory is first used
//	32 16  cluster, zero until registered
//	48  8  chunkserver, 0 until registered
//	56  8  the highest election revision seen
//	64  4  n
//	68     n × (chunkserver:8 length:2 address), where the others were last, sorted
//	 …  4  CRC32C of all before
const (
	identityName    = "CHUNKSERVER"
	identityMagic   = "ashlarcs"
	identityVersion = 1
	identityHeader  = 68
	addressesMax    = 4096
	addressMax      = 512
)

// ForeignError means that the directory belongs to another cluster than the one it is to serve.
type ForeignError struct {
	Dir        string
	Have, Want [16]byte
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("chunkserver: %s belongs to cluster %x, not to %x; give it another directory, or the metaservers of its cluster", e.Dir, e.Have, e.Want)
}

// Identity is who a data directory is.
type Identity struct {
	fs  vfs.FS
	dir string
	mu  struct {
		sync.Mutex
		r record
	}
}

type record struct {
	uuid, cluster [16]byte
	id            layout.ChunkserverID
	revision      int64
	addresses     map[layout.ChunkserverID]string
}

// OpenIdentity reads the identity in dir, and makes a new one when there is none.
func OpenIdentity(fsys vfs.FS, dir string) (*Identity, error) {
	i := &Identity{fs: fsys, dir: dir}
	i.mu.r.addresses = map[layout.ChunkserverID]string{}
	f, err := fsys.Open(dir+"/"+identityName, vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		if err := fsys.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("chunkserver: %w", err)
		}
		return i, i.update(func(r *record) { _, _ = rand.Read(r.uuid[:]) }) // Read never fails
	}
	if err != nil {
		return nil, fmt.Errorf("chunkserver: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("chunkserver: %w", err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("chunkserver: %s: %w", identityName, err)
	}
	if err := i.mu.r.parse(b); err != nil {
		return nil, fmt.Errorf("chunkserver: %s/%s: %w", dir, identityName, err)
	}
	return i, nil
}

func (r *record) parse(b []byte) error {
	le := binary.LittleEndian
	if len(b) < identityHeader+4 || string(b[:8]) != identityMagic || layout.CRC(b[:len(b)-4]) != le.Uint32(b[len(b)-4:]) {
		return errors.New("damaged")
	}
	if v := le.Uint32(b[8:]); v != identityVersion {
		return fmt.Errorf("version %d, this release knows %d", v, identityVersion)
	}
	copy(r.uuid[:], b[16:])
	copy(r.cluster[:], b[32:])
	r.id, r.revision = layout.ChunkserverID(le.Uint64(b[48:])), int64(le.Uint64(b[56:]))
	n := le.Uint32(b[64:])
	rest := b[identityHeader : len(b)-4]
	for range n {
		if len(rest) < 10 || len(rest) < 10+int(le.Uint16(rest[8:])) {
			return errors.New("damaged")
		}
		end := 10 + int(le.Uint16(rest[8:]))
		r.addresses[layout.ChunkserverID(le.Uint64(rest))] = string(rest[10:end])
		rest = rest[end:]
	}
	return nil
}

func (r *record) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, identityHeader)
	copy(b, identityMagic)
	le.PutUint32(b[8:], identityVersion)
	copy(b[16:], r.uuid[:])
	copy(b[32:], r.cluster[:])
	le.PutUint64(b[48:], uint64(r.id))
	le.PutUint64(b[56:], uint64(r.revision))
	le.PutUint32(b[64:], uint32(len(r.addresses)))
	for _, id := range slices.SortedFunc(maps.Keys(r.addresses), cmp.Compare) {
		b = le.AppendUint16(le.AppendUint64(b, uint64(id)), uint16(len(r.addresses[id])))
		b = append(b, r.addresses[id]...)
	}
	return le.AppendUint32(b, layout.CRC(b))
}

// update changes the record and makes it durable; on an error it is as before.
func (i *Identity) update(change func(*record)) error {
	i.mu.Lock()
	defer i.mu.Unlock() // held across I/O: changes are rare, and their order on disk is that of the calls
	next := i.mu.r
	next.addresses = maps.Clone(next.addresses)
	change(&next)
	if err := i.write(next.encode()); err != nil {
		return fmt.Errorf("chunkserver: %s: %w", identityName, err)
	}
	i.mu.r = next
	return nil
}

func (i *Identity) write(b []byte) error {
	name := i.dir + "/" + identityName
	f, err := i.fs.Open(name+".tmp", vfs.CreateMissing)
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := i.fs.Rename(name+".tmp", name); err != nil {
		return err
	}
	return vfs.SyncDir(i.fs, i.dir)
}

func (i *Identity) record() record {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.mu.r
}

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
		return &ForeignError{Dir: i.dir, Have: r.cluster, Want: cluster}
	case id == 0 || r.id != 0 && r.id != id:
		return fmt.Errorf("chunkserver: %s is chunkserver %d, not %d", i.dir, r.id, id)
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

// learn keeps new addresses.
func (i *Identity) learn(addresses map[layout.ChunkserverID]string) error {
	have := i.Addresses()
	news := false
	for id, a := range addresses {
		news = news || have[id] != a && len(a) <= addressMax
	}
	if !news {
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
