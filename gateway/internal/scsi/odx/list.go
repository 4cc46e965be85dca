package odx

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// Limits of one command; the Third-party Copy VPD page announces them.
const (
	// RangeMax is the most ranges of one list.
	RangeMax = 64
	// TransferMax is the most data that a token stands for, and that one WRITE USING TOKEN writes, in bytes: what is done
	// within the four seconds that Windows gives a synchronous command, with room to spare.
	TransferMax = 64 << 20
	// TimeoutDefault is the inactivity timeout of a token for which none is asked, in seconds.
	TimeoutDefault = 60
	// TimeoutMax is the longest inactivity timeout, in seconds.
	TimeoutMax = 600
)

// Lengths of the parts of a list, in bytes.
const (
	populateHeader = 16
	writeHeader    = 536
	rangeLength    = 16
	// uncounted is what DATA LENGTH does not count: itself.
	uncounted = 2
)

// ROD types (SPC-4 table 106).
const (
	// TypeChangeVulnerable is a point in time copy that ends when the source changes.
	TypeChangeVulnerable = 0x00800001
	// TypePointInTime, in POPULATE TOKEN, asks for any point in time copy.
	TypePointInTime = 0x0080FFFF
	// TypeZero stands for as many zeroes as are asked for.
	TypeZero = 0xFFFF0001
)

// Range is a run of logical blocks.
type Range struct {
	LBA    uint64
	Blocks uint32
}

// Populate is the parameter list of POPULATE TOKEN.
type Populate struct {
	Immediate bool
	Timeout   uint32 // seconds, 1..TimeoutMax
	Ranges    []Range
}

// Write is the parameter list of WRITE USING TOKEN.
type Write struct {
	Immediate bool
	Delete    bool // the token is not needed any more
	Offset    uint64
	Token     Token
	Ranges    []Range
}

// Sense codes: key<<16 | ASC<<8 | ASCQ.
const (
	senseListLength = 0x051A00
	senseOutOfRange = 0x052100
	senseTokenType  = 0x052301
	senseUnknown    = 0x052304
	senseExpired    = 0x052307
	senseLength     = 0x05230A
	senseField      = 0x052600
	senseManyRanges = 0x052608
	senseNoRoom     = 0x05550D
)

// Refusal is why a list or a token can not be acted on.
type Refusal struct {
	Sense uint32 // key<<16 | ASC<<8 | ASCQ
	At    int    // first byte of the field in the list, -1 when none is to blame
}

func (*Refusal) Error() string { return "odx: refused" }

func refuse(sense uint32, at int) *Refusal { return &Refusal{sense, at} }

// ParsePopulate checks the parameter list of POPULATE TOKEN. The ranges are checked by CheckRanges.
func ParsePopulate(p []byte) (*Populate, *Refusal) {
	ranges, refused := parseRanges(p, populateHeader)
	if refused != nil {
		return nil, refused
	}
	l := &Populate{Immediate: p[2]&0x01 != 0, Timeout: binary.BigEndian.Uint32(p[4:]), Ranges: ranges}
	if l.Timeout > TimeoutMax {
		return nil, refuse(senseField, 4)
	}
	if l.Timeout == 0 {
		l.Timeout = TimeoutDefault
	}
	if typeValid := p[2]&0x02 != 0; typeValid {
		if t := binary.BigEndian.Uint32(p[8:]); t != TypeChangeVulnerable && t != TypePointInTime {
			return nil, refuse(senseField, 8)
		}
	}
	return l, nil
}

// ParseWrite checks the parameter list of WRITE USING TOKEN. The ranges are checked by CheckRanges, the token by Table.Find.
func ParseWrite(p []byte) (*Write, *Refusal) {
	ranges, refused := parseRanges(p, writeHeader)
	if refused != nil {
		return nil, refused
	}
	l := &Write{
		Immediate: p[2]&0x01 != 0, Delete: p[2]&0x02 != 0,
		Offset: binary.BigEndian.Uint64(p[8:]), Ranges: ranges,
	}
	copy(l.Token[:], p[16:])
	return l, nil
}

// parseRanges checks the lengths of a list whose ranges begin at header and takes them.
func parseRanges(p []byte, header int) ([]Range, *Refusal) {
	if len(p) < header {
		return nil, refuse(senseListLength, -1)
	}
	counted := int(binary.BigEndian.Uint16(p)) + uncounted
	length := int(binary.BigEndian.Uint16(p[header-2:]))
	switch {
	case counted < header+rangeLength:
		return nil, refuse(senseField, 0)
	case counted > len(p):
		return nil, refuse(senseListLength, -1)
	case length < rangeLength, length%rangeLength != 0, header+length > counted:
		return nil, refuse(senseField, header-2)
	case length > RangeMax*rangeLength:
		return nil, refuse(senseManyRanges, -1)
	}
	ranges := make([]Range, length/rangeLength)
	for i := range ranges {
		d := p[header+i*rangeLength:]
		ranges[i] = Range{binary.BigEndian.Uint64(d), binary.BigEndian.Uint32(d[8:])}
	}
	return ranges, nil
}

// CheckRanges checks the ranges of a list against the capacity and the most blocks that they may have together, and
// returns how many they have. Ranges must not overlap. header is 0 for POPULATE TOKEN.
func (l *Populate) CheckRanges(capacity, most uint64) (uint64, *Refusal) {
	return checkRanges(l.Ranges, populateHeader, capacity, most)
}

// CheckRanges is as for Populate.
func (l *Write) CheckRanges(capacity, most uint64) (uint64, *Refusal) {
	return checkRanges(l.Ranges, writeHeader, capacity, most)
}

func checkRanges(ranges []Range, header int, capacity, most uint64) (uint64, *Refusal) {
	var total uint64
	for i, r := range ranges {
		at := header + i*rangeLength
		if r.LBA > capacity || uint64(r.Blocks) > capacity-r.LBA {
			return 0, refuse(senseOutOfRange, at)
		}
		if total += uint64(r.Blocks); total > most {
			return 0, refuse(senseField, at+8)
		}
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.LBA, b.LBA) })
	var end uint64
	for _, r := range sorted {
		if r.Blocks == 0 {
			continue
		}
		if r.LBA < end {
			return 0, refuse(senseField, header)
		}
		end = r.LBA + uint64(r.Blocks)
	}
	return total, nil
}

// Cut appends to dst the ranges that hold blocks skip to skip+n of the data that ranges hold one after the other. They
// hold that many.
func Cut(dst, ranges []Range, skip, n uint64) []Range {
	for _, r := range ranges {
		if n == 0 {
			break
		}
		have := uint64(r.Blocks)
		if skip >= have {
			skip -= have
			continue
		}
		take := min(have-skip, n)
		dst = append(dst, Range{r.LBA + skip, uint32(take)})
		skip, n = 0, n-take
	}
	return dst
}
