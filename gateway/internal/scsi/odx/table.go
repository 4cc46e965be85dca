package odx

import (
	"container/list"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"sync"
	"time"
)

// PieceLength is how many bytes of a token's data one digest is of; the last piece may be shorter.
const PieceLength = 1 << 20

// Digest is of one piece of data.
type Digest [sha256.Size]byte

// DigestOf returns the digest of p.
func DigestOf(p []byte) Digest { return sha256.Sum256(p) }

// Content is what a token stands for, immutable: Ranges of the logical unit Unit, one after the other.
type Content struct {
	Unit             [16]byte // NAA designator
	BlockLength      uint32   // bytes
	PhysicalExponent byte     // log2 of logical blocks per physical block
	Blocks           uint64   // of all ranges
	Ranges           []Range
	Digests          []Digest // of each PieceLength bytes
}

// Limits of a Table. A token has at most 4 KiB.
const (
	tokensMax     = 4096
	tokensOfOwner = 256
)

// Table holds the tokens of one gateway. A token is good until it was not used for as long as its timeout, is deleted, or
// makes place for newer ones of its owner. Methods may be called from any goroutine.
type Table struct {
	now    func() time.Time
	random io.Reader

	mu struct {
		sync.Mutex
		last   uint64
		tokens map[secret]*entry
		owners map[string]*list.List // of *entry, the one that was used last at the end
	}
}

// secret is the random part of a token, by which it is found.
type secret [randomLength]byte

type entry struct {
	token   *Token
	content *Content
	owner   string
	timeout time.Duration
	used    time.Time
	place   *list.Element
}

// NewTable returns an empty table. random is a cryptographic generator; now tells the time and never goes back.
func NewTable(now func() time.Time, random io.Reader) *Table {
	t := &Table{now: now, random: random}
	t.mu.tokens = map[secret]*entry{}
	t.mu.owners = map[string]*list.List{}
	return t
}

// Add makes a token for c, which it keeps. owner is who asked for it; timeout is Populate.Timeout.
func (t *Table) Add(owner string, c *Content, timeout uint32) (*Token, *Refusal) {
	var s secret
	if _, err := io.ReadFull(t.random, s[:]); err != nil {
		return nil, refuse(senseNoRoom, -1)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.mu.owners[owner]
	if own != nil && own.Len() >= tokensOfOwner {
		t.dropLocked(own.Front().Value.(*entry))
		own = t.mu.owners[owner]
	}
	if len(t.mu.tokens) >= tokensMax {
		t.expireLocked()
		own = t.mu.owners[owner]
	}
	if len(t.mu.tokens) >= tokensMax {
		return nil, refuse(senseNoRoom, -1)
	}
	if own == nil {
		own = list.New()
		t.mu.owners[owner] = own
	}
	t.mu.last++
	e := &entry{
		token: newToken(c, t.mu.last, s[:]), content: c, owner: owner,
		timeout: time.Duration(timeout) * time.Second, used: t.now(),
	}
	e.place = own.PushBack(e)
	t.mu.tokens[s] = e
	return e.token, nil
}

// Find returns what a token stands for, and begins its time of inactivity anew. token is not the zero token.
func (t *Table) Find(token *Token) (*Content, *Refusal) {
	if refused := token.Check(); refused != nil {
		return nil, refused
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.findLocked(token)
	if e == nil {
		return nil, Unknown()
	}
	now := t.now()
	if now.Sub(e.used) > e.timeout {
		t.dropLocked(e)
		return nil, refuse(senseExpired, 16)
	}
	e.used = now
	t.mu.owners[e.owner].MoveToBack(e.place)
	return e.content, nil
}

// Delete forgets a token, if it is there.
func (t *Table) Delete(token *Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.findLocked(token); e != nil {
		t.dropLocked(e)
	}
}

// findLocked returns the entry of a token, or nil. All of the token has to be right, not only what it is found by.
func (t *Table) findLocked(token *Token) *entry {
	e := t.mu.tokens[secret(token[tokenRandom:tokenRandom+randomLength])]
	if e == nil || subtle.ConstantTimeCompare(e.token[:], token[:]) != 1 {
		return nil
	}
	return e
}

func (t *Table) dropLocked(e *entry) {
	delete(t.mu.tokens, secret(e.token[tokenRandom:tokenRandom+randomLength]))
	own := t.mu.owners[e.owner]
	own.Remove(e.place)
	if own.Len() == 0 {
		delete(t.mu.owners, e.owner)
	}
}

// expireLocked drops the tokens whose time is over.
func (t *Table) expireLocked() {
	now := t.now()
	for _, e := range t.mu.tokens {
		if now.Sub(e.used) > e.timeout {
			t.dropLocked(e)
		}
	}
}
