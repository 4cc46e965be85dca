package namespace

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// SealKeySize is the size of a sealing key, in bytes.
const SealKeySize = 32

// sealVersion is the first byte of a sealed secret.
const sealVersion = 1

// keyHint is how many bytes of the key's hash a sealed secret carries, so that a wrong key is told from damage.
const keyHint = 4

// The errors of Open.
var (
	// ErrSealKey: it was sealed with another key.
	ErrSealKey = errors.New("the secret was sealed with another key: give every metaserver the same seal-key-file")
	// ErrSealed: it is damaged or belongs to somebody else.
	ErrSealed = errors.New("the sealed secret is damaged")
)

// Sealer encrypts CHAP secrets for the store. A sealed secret is
//
//	version:1 (1)  hint:4 (of SHA-256 of the key)  nonce:12  AES-256-GCM(secret) with its tag:16
//
// and is bound to the place that it was sealed for, so that one can not be put in the place of another.
type Sealer struct {
	aead cipher.AEAD
	hint [keyHint]byte
}

// NewSealer takes the content of a key file: 32 bytes, or 64 hexadecimal digits with or without white space around them.
func NewSealer(file []byte) (*Sealer, error) {
	key := file
	if len(key) != SealKeySize {
		text := bytes.TrimSpace(file)
		key = make([]byte, SealKeySize)
		if len(text) != hex.EncodedLen(SealKeySize) {
			return nil, fmt.Errorf("a sealing key is %d bytes or %d hexadecimal digits (make one with: openssl rand -hex %d)",
				SealKeySize, hex.EncodedLen(SealKeySize), SealKeySize)
		}
		if _, err := hex.Decode(key, text); err != nil {
			return nil, errors.New("the sealing key has other characters than hexadecimal digits")
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	s := &Sealer{aead: aead}
	sum := sha256.Sum256(key)
	copy(s.hint[:], sum[:])
	return s, nil
}

// Seal encrypts a secret for a place.
func (s *Sealer) Seal(secret, place string) []byte {
	out := append([]byte{sealVersion}, s.hint[:]...)
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce) // crypto/rand.Read never fails: it ends the process instead
	out = append(out, nonce...)
	return s.aead.Seal(out, nonce, []byte(secret), []byte(place))
}

// Open decrypts what Seal made for the same place.
func (s *Sealer) Open(sealed []byte, place string) (string, error) {
	head := 1 + keyHint
	if len(sealed) < head+s.aead.NonceSize() || sealed[0] != sealVersion {
		return "", ErrSealed
	}
	if !bytes.Equal(sealed[1:head], s.hint[:]) {
		return "", ErrSealKey
	}
	nonce, rest := sealed[head:head+s.aead.NonceSize()], sealed[head+s.aead.NonceSize():]
	secret, err := s.aead.Open(nil, nonce, rest, []byte(place))
	if err != nil {
		return "", ErrSealed
	}
	return string(secret), nil
}
