package login

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Limits of CHAP.
const (
	// MaxSecrets is how many secrets of one user may be valid at a time.
	MaxSecrets = 2
	// challengeLenMin is the shortest challenge that the target makes, in bytes.
	challengeLenMin = 16
)

// CHAPAlgorithm is a hash of CHAP by its number in CHAP_A.
type CHAPAlgorithm uint8

// The algorithms, RFC 7143 section 12.1.3 and the IANA registry.
const (
	CHAPMD5    CHAPAlgorithm = 5
	CHAPSHA1   CHAPAlgorithm = 6
	CHAPSHA256 CHAPAlgorithm = 7
	CHAPSHA3   CHAPAlgorithm = 8 // SHA3-256
)

var chapAlgorithms = []CHAPAlgorithm{CHAPMD5, CHAPSHA1, CHAPSHA256, CHAPSHA3}

// newHash returns the hash of a; a is one of chapAlgorithms.
func (a CHAPAlgorithm) newHash() hash.Hash {
	switch a {
	case CHAPMD5:
		return md5.New()
	case CHAPSHA1:
		return sha1.New()
	case CHAPSHA256:
		return sha256.New()
	case CHAPSHA3:
		return sha3.New256()
	}
	panic(fmt.Sprintf("login: CHAP algorithm %d", a))
}

// CHAPResponse returns the response to a challenge, RFC 1994 section 4.1: H(id | secret | challenge).
func CHAPResponse(a CHAPAlgorithm, id uint8, secret Secret, challenge []byte) []byte {
	h := a.newHash()
	h.Write([]byte{id})
	h.Write(secret)
	h.Write(challenge)
	return h.Sum(nil)
}

// chap is one run of CHAP. It is made when CHAP_A arrived.
type chap struct {
	algorithm CHAPAlgorithm
	id        uint8
	challenge []byte
	all       *Challenges // of all connections; may be nil
}

// startCHAP picks the first algorithm of the initiator's list that is allowed and makes a challenge as long as the
// algorithm's hash.
func startCHAP(list string, cfg *Config, rand io.Reader) (*chap, error) {
	for item := range strings.SplitSeq(list, ",") {
		n, ok := parseNumber(item, 0, 255)
		if !ok || !slices.Contains(cfg.CHAPAlgorithms, CHAPAlgorithm(n)) {
			continue
		}
		c := &chap{algorithm: CHAPAlgorithm(n), all: cfg.Challenges}
		random := make([]byte, 1+max(challengeLenMin, c.algorithm.newHash().Size()))
		if _, err := io.ReadFull(rand, random); err != nil {
			return nil, failf(StatusTargetError, "no random bytes: %v", err)
		}
		c.id, c.challenge = random[0], random[1:]
		if !c.all.made(c.challenge) {
			return nil, failf(StatusTargetError, "the random generator made a challenge twice")
		}
		return c, nil
	}
	return nil, failf(StatusAuthenticationFailure, "no acceptable algorithm in CHAP_A=%q", list)
}

// offer returns the target's second step.
func (c *chap) offer() []Pair {
	return []Pair{
		{keyCHAPA, strconv.Itoa(int(c.algorithm))},
		{keyCHAPI, strconv.Itoa(int(c.id))},
		{keyCHAPC, encodeBinary(c.challenge)},
	}
}

// verified is a proof that was found right.
type verified struct {
	auth     *Auth // which asks for it
	proof    Proof
	response []byte
}

// verify checks name and response of the initiator against all of auths, in a time that depends only on how many those are.
func (c *chap) verify(auths []Auth, name, value string) (verified, error) {
	size := c.algorithm.newHash().Size()
	resp, err := decodeBinary(value, size)
	if err != nil || len(resp) != size {
		return verified{}, failf(StatusAuthenticationFailure, "malformed CHAP_R of %d characters", len(value))
	}
	found := verified{response: resp}
	known := 0
	gotName := sha256.Sum256([]byte(name))
	for i := range auths {
		want := auths[i].Initiator
		wantName := sha256.Sum256([]byte(want.User))
		sameName := subtle.ConstantTimeCompare(gotName[:], wantName[:])
		known |= sameName
		for _, s := range want.Secrets {
			valid := subtle.ConstantTimeCompare(resp, CHAPResponse(c.algorithm, c.id, s, c.challenge))
			if valid&sameName == 1 && found.auth == nil {
				found.auth, found.proof = &auths[i], newProof(want.User, s)
			}
		}
	}
	switch {
	case found.auth != nil:
		return found, nil
	case known == 0:
		return verified{}, failf(StatusAuthenticationFailure, "unknown CHAP user %q", name)
	}
	return verified{}, failf(StatusAuthenticationFailure, "wrong secret of CHAP user %q", name)
}

// answer proves the target to the initiator. theirs is the response that verify returned.
func (c *chap) answer(auth *Auth, theirs []byte, idValue, challengeValue string) ([]Pair, error) {
	if auth.Mutual == nil {
		return nil, failf(StatusAuthenticationFailure, "the initiator asks for mutual CHAP, which is not configured")
	}
	id, ok := parseNumber(idValue, 0, 255)
	if !ok {
		return nil, failf(StatusAuthenticationFailure, "CHAP_I=%q", idValue)
	}
	challenge, err := decodeBinary(challengeValue, MaxBinaryLen)
	if err != nil {
		return nil, failf(StatusAuthenticationFailure, "CHAP_C: %v", err)
	}
	if bytes.Equal(challenge, c.challenge) || c.all.has(challenge) {
		return nil, failf(StatusAuthenticationFailure, "the initiator reflects a challenge of the target")
	}
	for _, s := range auth.Initiator.Secrets {
		if subtle.ConstantTimeCompare(s, auth.Mutual.Secret) == 1 {
			return nil, failf(StatusAuthenticationFailure, "the secrets of the two directions are the same")
		}
	}
	ours := CHAPResponse(c.algorithm, uint8(id), auth.Mutual.Secret, challenge)
	if subtle.ConstantTimeCompare(ours, theirs) == 1 {
		return nil, failf(StatusAuthenticationFailure, "both responses are the same")
	}
	return []Pair{{keyCHAPN, auth.Mutual.User}, {keyCHAPR, encodeBinary(ours)}}, nil
}
