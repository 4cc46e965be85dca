package odx

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"
)

// TokenLength is the length of a token, in bytes.
const TokenLength = 512

// Token is a ROD token as initiators hand it around (SPC-4 5.16.6.5).
type Token [TokenLength]byte

// Where the parts of a token are.
const (
	tokenType    = 0
	tokenLength  = 6
	tokenNumber  = 8
	tokenCreator = 16
	tokenBytes   = 48
	tokenDevice  = 96
	tokenRandom  = 128
	randomLength = 64
	tokenVersion = 192
	tokenRanges  = 194
	tokenMade    = 196
	tokenTimeout = 204
	tokenRoot    = 208
	tokenList    = 240
	tokenSum     = 480
	// tokenFormat is the version of what begins at tokenVersion.
	tokenFormat = 1
	// tokenBody is what LENGTH says: all that follows it.
	tokenBody = TokenLength - 8
)

// Type returns the ROD type.
func (t *Token) Type() uint32 { return binary.BigEndian.Uint32(t[tokenType:]) }

// Zero tells whether t is the block device zero ROD token (SBC-3 4.25.5.2), which stands for zeroes without end.
func (t *Token) Zero() bool { return t.Type() == TypeZero }

// Check returns why t can be no token of ours, or nil.
func (t *Token) Check() *Refusal {
	switch {
	case t.Type() != TypeZero && t.Type() != TypeChangeVulnerable:
		return refuse(senseTokenType, 16)
	case binary.BigEndian.Uint16(t[tokenLength:]) != tokenBody:
		return refuse(senseLength, 16)
	}
	return nil
}

// Unknown is the answer to a token that nobody made.
func Unknown() *Refusal { return refuse(senseUnknown, 16) }

// OffsetBeyond is the answer to a WRITE USING TOKEN that asks for more than the token stands for.
func OffsetBeyond() *Refusal { return refuse(senseField, 8) }

// newToken encodes a token for data of which c tells, made at that time, under a number and randomLength random bytes.
func newToken(c *Content, number uint64, random []byte, made time.Time, timeout uint32) *Token {
	t := &Token{}
	binary.BigEndian.PutUint32(t[tokenType:], TypeChangeVulnerable)
	binary.BigEndian.PutUint16(t[tokenLength:], tokenBody)
	binary.BigEndian.PutUint64(t[tokenNumber:], number)
	creator := t[tokenCreator:]
	creator[0] = 0xE4             // identification descriptor
	creator[4], creator[5] = 1, 3 // binary, NAA
	creator[7] = byte(copy(creator[8:], c.Unit[:]))
	creator[29], creator[30], creator[31] = byte(c.BlockLength>>16), byte(c.BlockLength>>8), byte(c.BlockLength)
	binary.BigEndian.PutUint64(t[tokenBytes+8:], c.Blocks*uint64(c.BlockLength))
	device := t[tokenDevice:]
	binary.BigEndian.PutUint32(device, c.BlockLength)
	device[5] = c.PhysicalExponent
	device[6] = 0xC0 // LBPME, LBPRZ
	copy(t[tokenRandom:], random)
	t.tell(c, made, timeout)
	return t
}

// tell encodes what another gateway needs, if it has a place.
func (t *Token) tell(c *Content, made time.Time, timeout uint32) {
	t[tokenVersion] = tokenFormat
	binary.BigEndian.PutUint64(t[tokenMade:], uint64(made.Unix()))
	binary.BigEndian.PutUint32(t[tokenTimeout:], timeout)
	root := c.root()
	copy(t[tokenRoot:], root[:])
	list := make([]byte, 0, RangeMax*2*binary.MaxVarintLen64)
	for _, r := range c.Ranges {
		list = binary.AppendUvarint(binary.AppendUvarint(list, r.LBA), uint64(r.Blocks))
	}
	if len(list) <= tokenSum-tokenList {
		copy(t[tokenList:], list)
		binary.BigEndian.PutUint16(t[tokenRanges:], uint16(len(c.Ranges)))
	}
	sum := sha256.Sum256(t[:tokenSum])
	copy(t[tokenSum:], sum[:])
}

// told decodes what tell encoded, without the digests; ok is false when it was not. It is as good as whoever presents the token
// says.
func (t *Token) told() (c *Content, made time.Time, timeout uint32, ok bool) {
	n := binary.BigEndian.Uint16(t[tokenRanges:])
	if sum := sha256.Sum256(t[:tokenSum]); !bytes.Equal(sum[:], t[tokenSum:]) || t[tokenVersion] != tokenFormat || n == 0 || n > RangeMax {
		return nil, made, 0, false
	}
	c = &Content{
		BlockLength: binary.BigEndian.Uint32(t[tokenDevice:]), PhysicalExponent: t[tokenDevice+5], Root: Digest(t[tokenRoot:tokenList]),
	}
	copy(c.Unit[:], t[tokenCreator+8:])
	size := binary.BigEndian.Uint64(t[tokenBytes+8:])
	if c.BlockLength == 0 || size > TransferMax || size%uint64(c.BlockLength) != 0 {
		return nil, made, 0, false
	}
	list := t[tokenList:tokenSum]
	for range n {
		lba, a := binary.Uvarint(list)
		blocks, b := binary.Uvarint(list[max(a, 0):])
		if a <= 0 || b <= 0 || blocks > TransferMax || lba > math.MaxInt64 {
			return nil, made, 0, false
		}
		list = list[a+b:]
		c.Ranges = append(c.Ranges, Range{lba, uint32(blocks)})
		c.Blocks += blocks
	}
	timeout = binary.BigEndian.Uint32(t[tokenTimeout:])
	if c.Blocks*uint64(c.BlockLength) != size || timeout > TimeoutMax {
		return nil, made, 0, false
	}
	return c, time.Unix(int64(binary.BigEndian.Uint64(t[tokenMade:])&math.MaxInt64), 0), timeout, true
}
