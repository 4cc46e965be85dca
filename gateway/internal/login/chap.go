package login

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Limits of CHAP secrets.
const (
	// MaxSecrets is how many secrets of one user may be valid at a time.
	MaxSecrets = 2
	// SecretLenMin is the least length of a secret, in bytes: 96 bits without IPsec (RFC 7143 section 9.2.1).
	SecretLenMin = 12
	// SecretLenMax is the greatest, in bytes: Windows takes no more.
	SecretLenMax = 16
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

// CheckSecret reports, in words for an administrator, why s is not acceptable as a CHAP secret.
func CheckSecret(s Secret) error {
	if len(s) < SecretLenMin || len(s) > SecretLenMax {
		return fmt.Errorf("a CHAP secret must have %d to %d bytes, this one has %d", SecretLenMin, SecretLenMax, len(s))
	}
	return nil
}

// Check reports, in words for an administrator, why a is not acceptable.
func (a Auth) Check() error {
	if a.Initiator == nil {
		if a.Mutual != nil {
			return errors.New("mutual CHAP needs CHAP for the initiator")
		}
		return nil
	}
	if n := len(a.Initiator.Secrets); n < 1 || n > MaxSecrets {
		return fmt.Errorf("a CHAP user must have 1 to %d secrets, this one has %d", MaxSecrets, n)
	}
	if n := len(a.Initiator.User); n < 1 || n > MaxValueLen {
		return fmt.Errorf("a CHAP user name must have 1 to %d bytes, this one has %d", MaxValueLen, n)
	}
	for _, s := range a.Initiator.Secrets {
		if err := CheckSecret(s); err != nil {
			return err
		}
		if a.Mutual != nil && bytes.Equal(s, a.Mutual.Secret) {
			return errors.New("the secrets of the two directions must differ")
		}
	}
	if a.Mutual == nil {
		return nil
	}
	if n := len(a.Mutual.User); n < 1 || n > MaxValueLen {
		return fmt.Errorf("a CHAP user name must have 1 to %d bytes, this one has %d", MaxValueLen, n)
	}
	return CheckSecret(a.Mutual.Secret)
}

// chap is one run of CHAP. It is made when CHAP_A arrived.
type chap struct {
	algorithm CHAPAlgorithm
	id        uint8
	challenge []byte
}

// startCHAP picks the first algorithm of the initiator's list that is allowed and makes a challenge as long as the
// algorithm's hash.
func startCHAP(list string, allowed []CHAPAlgorithm, rand io.Reader) (*chap, error) {
	for item := range strings.SplitSeq(list, ",") {
		n, ok := parseNumber(item, 0, 255)
		if !ok || !slices.Contains(allowed, CHAPAlgorithm(n)) {
			continue
		}
		c := &chap{algorithm: CHAPAlgorithm(n)}
		random := make([]byte, 1+max(challengeLenMin, c.algorithm.newHash().Size()))
		if _, err := io.ReadFull(rand, random); err != nil {
			return nil, failf(StatusTargetError, "no random bytes: %v", err)
		}
		c.id, c.challenge = random[0], random[1:]
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

// verify checks name and response of the initiator, in a time that depends on neither, and returns the response.
func (c *chap) verify(want *Credentials, name, value string) ([]byte, error) {
	size := c.algorithm.newHash().Size()
	resp, err := decodeBinary(value, size)
	if err != nil || len(resp) != size {
		return nil, failf(StatusAuthenticationFailure, "malformed CHAP_R of %d characters", len(value))
	}
	valid := 0
	for _, s := range want.Secrets {
		valid |= subtle.ConstantTimeCompare(resp, CHAPResponse(c.algorithm, c.id, s, c.challenge))
	}
	gotName, wantName := sha256.Sum256([]byte(name)), sha256.Sum256([]byte(want.User))
	sameName := subtle.ConstantTimeCompare(gotName[:], wantName[:])
	if sameName&valid != 1 {
		if sameName != 1 {
			return nil, failf(StatusAuthenticationFailure, "unknown CHAP user %q", name)
		}
		return nil, failf(StatusAuthenticationFailure, "wrong secret of CHAP user %q", name)
	}
	return resp, nil
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
	if bytes.Equal(challenge, c.challenge) {
		return nil, failf(StatusAuthenticationFailure, "the initiator reflects the challenge")
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
