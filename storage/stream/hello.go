package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// The versions of the protocol that are spoken.
const (
	VersionMin = 1
	VersionMax = 1
)

// Purpose is what a stream is for.
type Purpose uint8

// The purposes.
const (
	// Chunk carries Requests and Responses of api/chunk/v1.
	Chunk Purpose = iota + 1
	// RaftControl and RaftData carry Batches of api/raft/v1 in one direction: small messages, and entries.
	RaftControl
	RaftData
)

// Code is why a hello was refused.
type Code uint8

// The codes of an answer.
const (
	Accepted Code = iota
	// BadVersion: no version is known to both sides.
	BadVersion
	// BadFlags: the hello asks for something that is not known.
	BadFlags
	// BadPurpose: no such streams are served here.
	BadPurpose
	// BadCluster and BadChunkserver: somebody else is meant.
	BadCluster
	BadChunkserver
	// NotReady: later perhaps.
	NotReady
)

// RefusedError is the answer of a server that does not take the stream.
type RefusedError struct {
	Code   Code
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("stream: refused (%d): %s", e.Code, e.Reason)
}

// Refuse returns an error for Service.Check.
func Refuse(code Code, format string, args ...any) error {
	return &RefusedError{code, fmt.Sprintf(format, args...)}
}

// Hello says who wants to talk to whom, and about what.
type Hello struct {
	Purpose Purpose
	Cluster [16]byte
	// From is the chunkserver that dialled, 0 for who is none; To is whom it believes to talk to, 0 if it does not care.
	From, To layout.ChunkserverID

	lowest, highest uint8
	flags           uint32
}

const (
	magic = "ashlar/s"
	// helloSize and answerSize are the lengths of hello and answer without text, in bytes; helloMax bounds both.
	helloSize  = 60
	answerSize = 20
	helloMax   = 1024
	// prefixSize is how much of them tells the length.
	prefixSize = 10
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// append appends the encoding.
func (h *Hello) append(b []byte) []byte {
	b = append(b, magic...)
	b = le.AppendUint16(b, helloSize)
	b = append(b, h.lowest, h.highest, byte(h.Purpose), 0, 0, 0)
	b = le.AppendUint32(b, h.flags)
	b = le.AppendUint32(b, 0)
	b = append(b, h.Cluster[:]...)
	b = le.AppendUint64(b, uint64(h.From))
	b = le.AppendUint64(b, uint64(h.To))
	return seal(b)
}

// seal appends the checksum of a hello or answer.
func seal(b []byte) []byte { return le.AppendUint32(b, crc32.Checksum(b, castagnoli)) }

// parse parses a hello, or says why it is none.
func (h *Hello) parse(b []byte) error {
	if err := checkSealed(b, helloSize); err != nil {
		return err
	}
	*h = Hello{
		lowest: b[10], highest: b[11], Purpose: Purpose(b[12]), flags: le.Uint32(b[16:]), Cluster: [16]byte(b[24:40]),
		From: layout.ChunkserverID(le.Uint64(b[40:])), To: layout.ChunkserverID(le.Uint64(b[48:])),
	}
	return nil
}

// checkSealed checks magic, length and checksum of a hello or answer of at least size bytes.
func checkSealed(b []byte, size int) error {
	switch {
	case len(b) < size || int(le.Uint16(b[8:])) != len(b):
		return fmt.Errorf("%w: %d bytes", errHello, len(b))
	case string(b[:len(magic)]) != magic:
		return fmt.Errorf("%w: magic %q", errHello, b[:len(magic)])
	case crc32.Checksum(b[:len(b)-4], castagnoli) != le.Uint32(b[len(b)-4:]):
		return fmt.Errorf("%w: its checksum does not fit", errHello)
	}
	return nil
}

var errHello = fmt.Errorf("stream: no hello of a stream")

// negotiate returns the version to speak.
func (h *Hello) negotiate() (uint8, error) {
	version := min(h.highest, VersionMax)
	switch {
	case h.lowest > h.highest || version < max(h.lowest, VersionMin):
		return 0, Refuse(BadVersion, "versions %d to %d, here are %d to %d", h.lowest, h.highest, VersionMin, VersionMax)
	case h.flags != 0:
		return 0, Refuse(BadFlags, "flags %#x are not known here", h.flags)
	}
	return version, nil
}

// answer is what a server says to a hello.
type answer struct {
	code    Code
	version uint8
	flags   uint32
	text    string
}

func (a *answer) append(b []byte) []byte {
	text := a.text[:min(len(a.text), helloMax-answerSize)]
	b = append(b, magic...)
	b = le.AppendUint16(b, uint16(answerSize+len(text)))
	b = append(b, byte(a.code), a.version)
	b = le.AppendUint32(b, a.flags)
	return seal(append(b, text...))
}

func (a *answer) parse(b []byte) error {
	if err := checkSealed(b, answerSize); err != nil {
		return err
	}
	*a = answer{Code(b[10]), b[11], le.Uint32(b[12:]), readable(b[16 : len(b)-4])}
	return nil
}

// err returns why there is no stream.
func (a *answer) err() error {
	switch {
	case a.code != Accepted:
		return &RefusedError{a.code, a.text}
	case a.version < VersionMin || a.version > VersionMax || a.flags != 0:
		return fmt.Errorf("%w: an answer of version %d with flags %#x", errHello, a.version, a.flags)
	}
	return nil
}

// readable makes text of what a peer sent.
func readable(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// readSealed reads a hello or an answer, of which the first prefixSize bytes may be known already.
func readSealed(r io.Reader, known []byte) ([]byte, error) {
	b := append(make([]byte, 0, helloSize), known...)
	if len(b) < prefixSize {
		b = b[:prefixSize]
		if _, err := io.ReadFull(r, b[len(known):]); err != nil {
			return nil, err
		}
	}
	n := int(le.Uint16(b[8:]))
	if n < answerSize || n > helloMax || string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: %q", errHello, b)
	}
	known = b
	b = make([]byte, n)
	copy(b, known)
	_, err := io.ReadFull(r, b[len(known):])
	return b, err
}
