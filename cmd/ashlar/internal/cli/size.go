package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a flag that takes a number of bytes.
type size uint64

// units are what a size can be followed by.
var units = []struct {
	name  string
	bytes uint64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// parseSize reads "4GiB", "512MiB" or a plain number of bytes. Decimal units ("4GB") are refused because half of those who
// write them mean binary ones.
func parseSize(s string) (size, error) {
	text, unit := s, uint64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			text, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		if fit := binaryUnit(s); fit != "" {
			return 0, fmt.Errorf("%q is ambiguous: write %s (units are KiB, MiB, GiB and TiB)", s, fit)
		}
		return 0, fmt.Errorf("%q is not a size: write a whole number with KiB, MiB, GiB or TiB, such as 4GiB, or plain bytes", s)
	}
	if n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return size(n * unit), nil
}

// binaryUnit proposes a size for one with a unit that is not taken ("4GB", "4g", "4gib"), empty if it has none.
func binaryUnit(s string) string {
	digits := strings.TrimRight(s, "kKmMgGtTiIbB ")
	if digits == s || digits == "" {
		return ""
	}
	if _, err := strconv.ParseUint(digits, 10, 64); err != nil {
		return ""
	}
	rest := strings.ToUpper(strings.TrimSpace(s[len(digits):]))
	for _, u := range units {
		if strings.HasPrefix(rest, u.name[:1]) {
			return digits + u.name
		}
	}
	return digits
}

// Set, String and Type make size a flag.
func (z *size) Set(s string) error {
	v, err := parseSize(s)
	*z = v
	return err
}

func (z *size) String() string { return sizeText(uint64(*z)) }

// Type names the value in the help text.
func (z *size) Type() string { return "SIZE" }

// sizeText shows a number of bytes in the largest unit in which it is at least 1, with one digit after the point where it
// is not whole.
func sizeText(n uint64) string {
	for _, u := range units {
		switch {
		case n < u.bytes:
		case n%u.bytes == 0:
			return strconv.FormatUint(n/u.bytes, 10) + u.name
		default:
			return strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', 1, 64) + u.name
		}
	}
	return strconv.FormatUint(n, 10)
}
