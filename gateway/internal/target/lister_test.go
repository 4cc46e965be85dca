package target

import (
	"slices"
	"testing"
)

func TestLister(t *testing.T) {
	r, _ := newRegistry(t, roomy)
	c := config()
	c.Portals = []Portal{
		{Address: "0.0.0.0:3260", Group: 1},
		{Address: "[::]:3260", Group: 1},
		{Address: ":3261", Group: 1},
		{Address: "[fd00::1]:3260", Group: 1},
		{Address: "0.0.0.0:3260", Group: 2},
		{Address: ":3260", Group: 11},
		{Address: "gw.example.com:3260", Group: 2},
	}
	if err := r.Apply(c); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string][]string{
		"10.0.0.1":  {"10.0.0.1:3260,1", "10.0.0.1:3261,1", "[fd00::1]:3260,1", "gw.example.com:3260,2"},
		"[fd00::1]": {"[fd00::1]:3260,1", "[fd00::1]:3261,1", "gw.example.com:3260,2"},
	} {
		for _, rec := range r.At(host, 1).Targets(host1, "") {
			if !slices.Equal(rec.Addresses, want) {
				t.Errorf("at %s: %q, want %q", host, rec.Addresses, want)
			}
		}
	}
}
