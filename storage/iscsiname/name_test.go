package iscsiname

import (
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	for _, c := range []struct {
		in, want string
		ok       bool
	}{
		{"iqn.1991-05.com.microsoft:host.example.com", "iqn.1991-05.com.microsoft:host.example.com", true},
		{"IQN.1991-05.com.Microsoft:HOST_1", "iqn.1991-05.com.microsoft:host_1", true},
		{"iqn.2001-04.com.example", "iqn.2001-04.com.example", true},
		{"iqn.2001-04.com.example:ü", "iqn.2001-04.com.example:ü", true},
		{"iqn.2001-13.com.example:month", "iqn.2001-13.com.example:month", true}, // hosts have such
		{"eui.02004567A425678D", "eui.02004567a425678d", true},
		{"naa.52004567BA64678D", "naa.52004567ba64678d", true},
		{"naa.62004567BA64678D0123456789ABCDEF", "naa.62004567ba64678d0123456789abcdef", true},
		{"", "", false},
		{"iqn.", "", false},
		{"iqn.2001-04.", "", false},
		{"iqn.200x-04.com", "", false},
		{"iqn.2001_04.com", "", false},
		{"eui.0200", "", false},
		{"eui.0200456 A425678D", "", false},
		{"naa.zz004567BA64678D", "", false},
		{"iscsi.host", "", false},
		{"iqn.2001-04.com example", "", false},
		{"iqn.2001-04.com\nexample", "", false},
		{"iqn.2001-04.com\u2028example", "", false},
		{"iqn.2001-04.com.example,x", "", false},
		{"iqn.2001-04.com.example=x", "", false},
		{"*", "", false},
		{"iqn.2001-04.\xff\xfe", "", false},
		{"iqn.2001-04." + strings.Repeat("a", Max-12), "iqn.2001-04." + strings.Repeat("a", Max-12), true},
		{"iqn.2001-04." + strings.Repeat("a", Max-11), "", false},
	} {
		if got, ok := Fold(c.in); ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %q, %v; want %q, %v", c.in, got, ok, c.want, c.ok)
		}
	}
}
