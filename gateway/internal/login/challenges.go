package login

import (
	"crypto/sha256"
	"sync"
)

// challengesKept is how many challenges a Challenges remembers: more than logins can be under way at a time.
const challengesKept = 8192

// Challenges remembers the CHAP challenges that a target made last, over all of its connections. An initiator that sends one
// of them as its own wants a connection to answer for another one (RFC 7143 section 9.2.1: reflection), and one that is made
// a second time tells of a generator that can not be trusted. It may be used from any goroutine.
type Challenges struct {
	mu    sync.Mutex
	ring  [challengesKept]challengeSum
	next  int
	known map[challengeSum]struct{}
}

type challengeSum [16]byte

// NewChallenges returns a memory without challenges.
func NewChallenges() *Challenges { return &Challenges{known: map[challengeSum]struct{}{}} }

func sumOf(challenge []byte) challengeSum {
	sum := sha256.Sum256(challenge)
	return challengeSum(sum[:len(challengeSum{})])
}

// made takes a new challenge in; false: it was made before. A nil c remembers nothing.
func (c *Challenges) made(challenge []byte) bool {
	if c == nil {
		return true
	}
	sum := sumOf(challenge)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, again := c.known[sum]; again {
		return false
	}
	delete(c.known, c.ring[c.next])
	c.ring[c.next], c.known[sum] = sum, struct{}{}
	c.next = (c.next + 1) % challengesKept
	return true
}

// has reports whether a challenge is one of the target's.
func (c *Challenges) has(challenge []byte) bool {
	if c == nil {
		return false
	}
	sum := sumOf(challenge)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.known[sum]
	return known
}
