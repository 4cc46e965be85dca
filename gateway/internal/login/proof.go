package login

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
)

// Proof is what an initiator has proven by CHAP: a user's name and one of its secrets. It does not hold the secret. The zero
// value proves nothing.
type Proof struct {
	given bool
	sum   [sha256.Size]byte // of the length of the name (8 bytes), the name and the secret
}

func newProof(user string, secret Secret) Proof {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(user))))
	h.Write([]byte(user))
	h.Write(secret)
	return Proof{given: true, sum: [sha256.Size]byte(h.Sum(nil))}
}

// Satisfies reports whether p is what a asks of the initiator.
func (p Proof) Satisfies(a Auth) bool {
	if a.Initiator == nil {
		return true
	}
	ok := 0
	for _, s := range a.Initiator.Secrets {
		want := newProof(a.Initiator.User, s)
		ok |= subtle.ConstantTimeCompare(p.sum[:], want.sum[:])
	}
	return p.given && ok == 1
}

// String hides what is proven.
func (p Proof) String() string {
	if p.given {
		return "[proof]"
	}
	return "[no proof]"
}

// GoString hides what is proven.
func (p Proof) GoString() string { return p.String() }
