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
	Digests          []Digest // of each PieceLength bytes; see Known
	// Root is the digest of the digests, of a content that another gateway's token tells of.
	Root Digest
}

// root returns the digest of the digests.
func (c *Content) root() Digest {
	h := sha256.New()
	for i := range c.Digests {
		_, _ = h.Write(c.Digests[i][:]) // never fails
	}
	return Digest(h.Sum(nil))
}

// Known tells whether the digests are known, and not only Root. Of nothing there are none.
func (c *Content) Known() bool { return len(c.Digests) > 0 || c.Blocks == 0 }

// Whole returns the content with these digests; false when they are not those of which Root is.
func (c *Content) Whole(digests []Digest) (*Content, bool) {
	w := *c
	w.Digests = digests
	return &w, w.root() == c.Root
}

// Limits of a Table. A token has at most 4 KiB.
const (
	tokensMax     = 4096
	tokensOfOwner = 256
)

// Table holds the tokens of one gateway. A token is good until it was not used for as long as its timeout, or is deleted. One that
// is not in the table, because another gateway made it or it made place for newer ones of its owner, is good for its timeout
// after it was made. Methods may be called from any goroutine.
type Table struct {
	now    func() time.Time
	random io.Reader

	mu struct {
		sync.Mutex
		last   uint64
		tokens map[secret]*entry
		owners map[string]*list.List // of *entry, the one that was used last at the end
		// ended are the tokens that were deleted and whose time is not over, until when. When they are too many, those that were
		// made until since, to the second, count as ended.
		ended map[secret]time.Time
		since time.Time
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
	t.mu.ended = map[secret]time.Time{}
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
	t.mu.last++
	now := t.now()
	e := &entry{
		token: newToken(c, t.mu.last, s[:], now, timeout), content: c, owner: owner,
		timeout: time.Duration(timeout) * time.Second, used: now,
	}
	if !t.insertLocked(e) {
		return nil, refuse(senseNoRoom, -1)
	}
	return e.token, nil
}

// Adopt makes a token of another gateway one of this table, for a content whose digests are known. It need not have a place.
func (t *Table) Adopt(owner string, token *Token, c *Content) {
	_, made, timeout, ok := token.told()
	own := *token
	t.mu.Lock()
	defer t.mu.Unlock()
	if !ok || t.mu.tokens[secretOf(token)] != nil || t.endedLocked(token, made) {
		return
	}
	t.insertLocked(&entry{
		token: &own, content: c, owner: owner, timeout: time.Duration(timeout) * time.Second, used: t.now(),
	})
}

// insertLocked enters e, in the place of older ones of its owner if need be. It returns false when there is no room.
func (t *Table) insertLocked(e *entry) bool {
	owner := e.owner
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
		return false
	}
	if own == nil {
		own = list.New()
		t.mu.owners[owner] = own
	}
	e.place = own.PushBack(e)
	t.mu.tokens[secretOf(e.token)] = e
	return true
}

// Find returns what a token stands for, and begins its time of inactivity anew. The content of one that is not in the table has no
// digests and is what whoever presents the token says; see Content.Whole and Adopt. token is not the zero token.
func (t *Table) Find(token *Token) (*Content, *Refusal) {
	if refused := token.Check(); refused != nil {
		return nil, refused
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.findLocked(token)
	now := t.now()
	if e == nil {
		return t.foreignLocked(token, now)
	}
	if now.Sub(e.used) > e.timeout {
		t.dropLocked(e)
		return nil, refuse(senseExpired, 16)
	}
	e.used = now
	t.mu.owners[e.owner].MoveToBack(e.place)
	return e.content, nil
}

// foreignLocked returns what a token says that is not in the table.
func (t *Table) foreignLocked(token *Token, now time.Time) (*Content, *Refusal) {
	c, made, timeout, ok := token.told()
	switch {
	case !ok || t.endedLocked(token, made):
		return nil, Unknown()
	case now.Sub(made) > time.Duration(timeout)*time.Second:
		return nil, refuse(senseExpired, 16)
	}
	return c, nil
}

// Delete ends a token: it is not used any more, and its data need not be what they were.
func (t *Table) Delete(token *Token) {
	_, made, timeout, ok := token.told()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.findLocked(token)
	if e != nil {
		t.dropLocked(e)
	}
	if now := t.now(); ok {
		t.endLocked(secretOf(token), now, made.Add(time.Duration(timeout)*time.Second))
	}
}

// endLocked remembers that a token was deleted, until its time is over.
func (t *Table) endLocked(s secret, now, until time.Time) {
	if len(t.mu.ended) >= tokensMax {
		for s, end := range t.mu.ended {
			if now.After(end) {
				delete(t.mu.ended, s)
			}
		}
	}
	if len(t.mu.ended) >= tokensMax {
		clear(t.mu.ended)
		t.mu.since = now
	}
	t.mu.ended[s] = until
}

// endedLocked tells whether a token that was made then was deleted here.
func (t *Table) endedLocked(token *Token, made time.Time) bool {
	_, ended := t.mu.ended[secretOf(token)]
	return ended || !made.After(t.mu.since)
}

func secretOf(t *Token) secret { return secret(t[tokenRandom : tokenRandom+randomLength]) }

// findLocked returns the entry of a token, or nil. All of the token has to be right, not only what it is found by.
func (t *Table) findLocked(token *Token) *entry {
	e := t.mu.tokens[secretOf(token)]
	if e == nil || subtle.ConstantTimeCompare(e.token[:], token[:]) != 1 {
		return nil
	}
	return e
}

func (t *Table) dropLocked(e *entry) {
	delete(t.mu.tokens, secretOf(e.token))
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
