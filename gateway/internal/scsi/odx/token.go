package odx

import "encoding/binary"

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

// newToken encodes a token for data of which c tells, under a number and randomLength random bytes.
func newToken(c *Content, number uint64, random []byte) *Token {
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
	return t
}
