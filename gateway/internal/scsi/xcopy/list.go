package xcopy

import "encoding/binary"

// Limits of one command. OPERATING PARAMETERS and the Third-party Copy VPD page announce them.
const (
	// CSCDMax is the most CSCD descriptors of one list.
	CSCDMax = 16
	// SegmentMax is the most segment descriptors of one list.
	SegmentMax = 32
	// ListMax is the most bytes that CSCD and segment descriptors of one list have together.
	ListMax = CSCDMax*cscdLength + SegmentMax*offsetLength
	// SegmentBytesMax is the most that one segment may copy, in bytes.
	SegmentBytesMax = 16 << 20
	// Granularity is log2 of the bytes that a copy works in (DATA SEGMENT GRANULARITY).
	Granularity = 9
)

// Lengths of the parts of a list, in bytes.
const (
	headerLength = 16
	cscdLength   = 32
	blocksLength = 28
	offsetLength = 32
	// segmentHeader is what DESCRIPTOR LENGTH does not count.
	segmentHeader = 4
	// designatorMax is the longest designator that fits a CSCD descriptor.
	designatorMax = 20
)

// Descriptor type codes (SPC-4 tables 120 and 133).
const (
	typeBlocks = 0x02 // block device to block device
	typeOffset = 0x0A // the same, with byte offsets
	typeCSCD   = 0xE4 // identification descriptor
)

// Self is the CSCD descriptor ID of the logical unit that got the command (SPC-4 table 121).
const Self = 0xFFFF

// Usage is LIST ID USAGE (SPC-4 table 116).
type Usage byte

// Values of Usage.
const (
	UsageHold    Usage = 0 // the result is kept
	UsageDiscard Usage = 2 // the result need not be kept when the command ended with GOOD
	UsageNone    Usage = 3 // there is no list identifier, so nobody can ask for the result
)

// List is a parameter list that can be acted on.
type List struct {
	ID       byte
	Usage    Usage
	CSCDs    []CSCD
	Segments []Segment
}

// CSCD names a copy source or copy destination. Designator is a part of the list that was parsed.
type CSCD struct {
	PeripheralType byte
	CodeSet        byte
	Association    byte
	DesignatorType byte
	Designator     []byte
	Pad            bool
	BlockLength    uint32 // DISK BLOCK LENGTH, bytes; 0: not told
}

// Segment is one copy to be made. Either Blocks counts (ByBlocks) or Bytes and the offsets do.
type Segment struct {
	ByBlocks bool
	// OfDestination is DC: Blocks are the destination's.
	OfDestination bool
	// Residual is CAT.
	Residual            bool
	Source, Destination uint16
	Blocks              uint16
	Bytes               uint32
	SourceLBA           uint64
	DestinationLBA      uint64
	SourceOffset        uint16 // bytes into the first block
	DestinationOffset   uint16
}

// Sense codes of a Refusal: key<<16 | ASC<<8 | ASCQ.
const (
	senseListLength   = 0x051A00
	senseField        = 0x052600
	senseManyCSCDs    = 0x052606
	senseCSCDType     = 0x052607
	senseManySegments = 0x052608
	senseSegmentType  = 0x052609
	senseInline       = 0x05260B
)

// Refusal is why a list can not be acted on.
type Refusal struct {
	Sense uint32 // key<<16 | ASC<<8 | ASCQ
	At    int    // first byte of the field in the list, -1 when none is to blame
	Bit   int    // most significant bit of the field, -1 when it is whole bytes
}

func (*Refusal) Error() string { return "xcopy: the parameter list can not be used" }

func refuse(sense uint32, at int) *Refusal { return &Refusal{Sense: sense, At: at, Bit: -1} }

// Parse checks a parameter list and takes it apart. What it returns refers to p. p is not empty: a list of no bytes is no
// error and copies nothing (SPC-4 6.4.2), which is the caller's to know. Reserved fields, PRIORITY and STR are not looked
// at, and neither is LU ID TYPE, as SPC-4 table 123 asks.
func Parse(p []byte) (*List, *Refusal) {
	if len(p) < headerLength {
		return nil, refuse(senseListLength, -1)
	}
	cscds, segments := int64(binary.BigEndian.Uint16(p[2:])), int64(binary.BigEndian.Uint32(p[8:]))
	inline := int64(binary.BigEndian.Uint32(p[12:]))
	l := &List{ID: p[0], Usage: Usage(p[1] >> 3 & 3)}
	switch {
	case l.Usage == 1:
		return nil, &Refusal{Sense: senseField, At: 1, Bit: 4}
	case cscds+segments > ListMax:
		return nil, refuse(senseListLength, -1)
	case cscds > CSCDMax*cscdLength:
		return nil, refuse(senseManyCSCDs, -1)
	case cscds%cscdLength != 0:
		return nil, refuse(senseField, 2)
	case inline > 0:
		return nil, refuse(senseInline, -1)
	case int64(len(p)) < headerLength+cscds+segments:
		return nil, refuse(senseListLength, -1)
	}
	end := headerLength + int(cscds)
	for at := headerLength; at < end; at += cscdLength {
		c, refused := parseCSCD(p, at)
		if refused != nil {
			return nil, refused
		}
		l.CSCDs = append(l.CSCDs, c)
	}
	if refused := l.parseSegments(p[:end+int(segments)], end); refused != nil {
		return nil, refused
	}
	return l, nil
}

func parseCSCD(p []byte, at int) (CSCD, *Refusal) {
	d := p[at : at+cscdLength]
	if d[0] != typeCSCD {
		return CSCD{}, refuse(senseCSCDType, at)
	}
	c := CSCD{
		PeripheralType: d[1] & 0x1F,
		CodeSet:        d[4] & 0x0F,
		Association:    d[5] >> 4 & 3,
		DesignatorType: d[5] & 0x0F,
		Pad:            d[28]&0x04 != 0,
		BlockLength:    binary.BigEndian.Uint32(d[28:]) & 0xFFFFFF,
	}
	n := int(d[7])
	if n > designatorMax {
		return CSCD{}, refuse(senseField, at+7)
	}
	c.Designator = d[8 : 8+n : 8+n]
	return c, nil
}

// parseSegments takes the segment descriptors from p[at:].
func (l *List) parseSegments(p []byte, at int) *Refusal {
	for at < len(p) {
		if len(l.Segments) == SegmentMax {
			return refuse(senseManySegments, -1)
		}
		if code := p[at]; code != typeBlocks && code != typeOffset {
			return refuse(senseSegmentType, at)
		}
		length := blocksLength
		if p[at] == typeOffset {
			length = offsetLength
		}
		if len(p)-at < length {
			return refuse(senseListLength, -1)
		}
		d := p[at : at+length]
		if int(binary.BigEndian.Uint16(d[2:])) != length-segmentHeader {
			return refuse(senseField, at+2)
		}
		l.Segments = append(l.Segments, parseSegment(d))
		at += length
	}
	return nil
}

func parseSegment(d []byte) Segment {
	s := Segment{
		Residual:       d[1]&0x01 != 0,
		Source:         binary.BigEndian.Uint16(d[4:]),
		Destination:    binary.BigEndian.Uint16(d[6:]),
		SourceLBA:      binary.BigEndian.Uint64(d[12:]),
		DestinationLBA: binary.BigEndian.Uint64(d[20:]),
	}
	if d[0] == typeBlocks {
		s.ByBlocks, s.OfDestination = true, d[1]&0x02 != 0
		s.Blocks = binary.BigEndian.Uint16(d[10:])
		return s
	}
	s.Bytes = binary.BigEndian.Uint32(d[8:])
	s.SourceOffset, s.DestinationOffset = binary.BigEndian.Uint16(d[28:]), binary.BigEndian.Uint16(d[30:])
	return s
}
