package leasefile

import (
	"encoding/binary"
	"errors"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Instance tells one process from all others, on whichever machine and at whichever time.
type Instance [16]byte

// Note is what is kept of a lease.
type Note struct {
	// Etcd is etcd's id of its cluster, Prefix the key of the election there.
	Etcd   uint64
	Prefix string
	Lease  int64
	// Instance is the process that held the lease.
	Instance Instance
}

// place is what the lock of the file is about.
type place struct {
	boot       [16]byte
	dev, inode uint64
}

const (
	magic   = "ashlease"
	version = 1
	fixed   = 80
	trailer = 4
	// prefixMax bounds the election's prefix, in bytes.
	prefixMax = 1024
	sizeMax   = fixed + prefixMax + trailer
)

// errNoNote says that a file does not hold a note of this version.
var errNoNote = errors.New("leasefile: no note")

// encode gives the content of the file.
func encode(p place, n Note) ([]byte, error) {
	if len(n.Prefix) > prefixMax {
		return nil, errors.New("leasefile: the prefix is too long")
	}
	le := binary.LittleEndian
	b := append(make([]byte, 0, sizeMax), magic...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint32(b, uint32(len(n.Prefix)))
	b = append(b, p.boot[:]...)
	b = le.AppendUint64(b, p.dev)
	b = le.AppendUint64(b, p.inode)
	b = le.AppendUint64(b, n.Etcd)
	b = le.AppendUint64(b, uint64(n.Lease))
	b = append(b, n.Instance[:]...)
	b = append(b, n.Prefix...)
	return le.AppendUint32(b, layout.CRC(b)), nil
}

// decode reads it. The note holds nothing of b.
func decode(b []byte) (place, Note, error) {
	var p place
	var n Note
	le := binary.LittleEndian
	if len(b) < fixed+trailer || string(b[:8]) != magic || le.Uint32(b[8:]) != version {
		return p, n, errNoNote
	}
	size := le.Uint32(b[12:])
	if size > prefixMax || len(b) != fixed+int(size)+trailer {
		return p, n, errNoNote
	}
	body := b[:len(b)-trailer]
	if layout.CRC(body) != le.Uint32(b[len(body):]) {
		return p, n, errNoNote
	}
	copy(p.boot[:], b[16:])
	p.dev, p.inode = le.Uint64(b[32:]), le.Uint64(b[40:])
	n.Etcd, n.Lease = le.Uint64(b[48:]), int64(le.Uint64(b[56:]))
	copy(n.Instance[:], b[64:])
	n.Prefix = string(body[fixed:])
	return p, n, nil
}
