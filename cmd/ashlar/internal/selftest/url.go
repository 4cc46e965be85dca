package selftest

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// URL names a logical unit.
type URL struct {
	Portal       string // host:port
	Target       string
	LUN          uint16
	User, Secret string // of CHAP, empty for none
}

// portDefault is the port of iSCSI targets.
const portDefault = "3260"

// ErrURL says that a URL is not of the form that ParseURL reads.
var ErrURL = errors.New("give iscsi://[USER[%SECRET]@]HOST[:PORT]/TARGET/LUN")

// ParseURL reads the form that libiscsi and QEMU use. An IPv6 address stands in brackets.
func ParseURL(s string) (URL, error) {
	rest, ok := strings.CutPrefix(s, "iscsi://")
	if !ok {
		return URL{}, fmt.Errorf("%q: %w", s, ErrURL)
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" {
		return URL{}, fmt.Errorf("%q: %w", s, ErrURL)
	}
	u := URL{Target: parts[1]}
	lun, err := strconv.ParseUint(parts[2], 10, 14)
	if err != nil {
		return URL{}, fmt.Errorf("%q: LUN %q is not 0..16383: %w", s, parts[2], ErrURL)
	}
	u.LUN = uint16(lun)
	host := parts[0]
	if who, at, ok := cutLast(host, "@"); ok {
		host = at
		u.User, u.Secret, _ = strings.Cut(who, "%")
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), portDefault)
	}
	u.Portal = host
	return u, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// ErrRange says that a range is not of the form that ParseRange reads.
var ErrRange = errors.New("give FIRST-LAST, two logical block addresses, or all")

// All is the range that stands for the whole logical unit.
var All = Range{Count: 1<<64 - 1}

// ParseRange reads "FIRST-LAST", "all", or nothing.
func ParseRange(s string) (Range, error) {
	switch s {
	case "":
		return Range{}, nil
	case "all":
		return All, nil
	}
	a, b, ok := strings.Cut(s, "-")
	first, err1 := strconv.ParseUint(a, 10, 64)
	last, err2 := strconv.ParseUint(b, 10, 64)
	if !ok || err1 != nil || err2 != nil || last < first {
		return Range{}, fmt.Errorf("%q: %w", s, ErrRange)
	}
	return Range{First: first, Count: last - first + 1}, nil
}
