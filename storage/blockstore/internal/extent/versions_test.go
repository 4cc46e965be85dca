package extent

import (
	"errors"
	"slices"
	"testing"
)

func TestVersions(t *testing.T) {
	var v Versions
	for _, n := range []uint64{3, 5, 9} {
		v = v.Take(n)
	}
	if w := v.Drop(5); !slices.Equal(w.Numbers, []uint64{3, 9}) || w.Last != 9 || !v.Has(5) || w.Has(5) || w.Drop(5).Newest() != 9 {
		t.Errorf("%+v of %+v", w, v)
	}
	if v.Newest() != 9 || v.Before(3) != 0 || v.Before(5) != 3 || v.Before(100) != 9 || !slices.Equal(v.From(4), []uint64{5, 9}) {
		t.Errorf("%+v", v)
	}
	if empty := v.Drop(3).Drop(5).Drop(9); empty.Newest() != 0 || empty.Last != 9 {
		t.Errorf("%+v", empty)
	}
	b := v.AppendTo(nil)
	if got, err := ParseVersions(b); err != nil || got.Last != 9 || !slices.Equal(got.Numbers, v.Numbers) {
		t.Errorf("%+v, %v", got, err)
	}
	var bad *CorruptError
	for i := range b {
		if got, err := ParseVersions(b[:i]); err == nil && (i-versionsHeader)%8 == 0 && i >= versionsHeader {
			if !slices.Equal(got.Numbers, v.Numbers[:(i-versionsHeader)/8]) {
				t.Errorf("cut at %d: %v", i, got)
			}
		} else if !errors.As(err, &bad) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	for _, wrong := range []Versions{{Last: 2, Numbers: []uint64{3}}, {Last: 9, Numbers: []uint64{0, 3}}, {Last: 9, Numbers: []uint64{5, 5}}} {
		if _, err := ParseVersions(wrong.AppendTo(nil)); !errors.As(err, &bad) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	var newer *VersionError
	if b[0]++; true {
		if _, err := ParseVersions(b); !errors.As(err, &newer) {
			t.Error(err)
		}
	}
}

// TestLineage: a leaf shares only what the one before it at the same place has.
func TestLineage(t *testing.T) {
	old := NewLeaf(0, 0)
	for i := range uint32(4) {
		old.Set(i, Entry{Addr: Addr(10 + i), CRC: i})
	}
	young := old.Clone(0, 0)
	young.Shared, young.Born = old.Allocated, 3
	young.Set(1, Entry{Addr: 50, CRC: 9})
	at := LeafID{Index: 7}
	aside := at
	aside.Version = 3
	type step struct {
		inc uint64
		id  LeafID
		l   *Leaf
	}
	moved, other, late := young.Clone(0, 0), young.Clone(0, 0), old.Clone(0, 0)
	moved.Addr[2] = 77
	other.CRC[2] = 77
	late.Born = 3
	for name, c := range map[string]struct {
		steps []step
		good  bool
	}{
		"good":             {[]step{{1, aside, old}, {1, at, young}}, true},
		"no older":         {[]step{{1, at, young}}, false},
		"another place":    {[]step{{1, aside, old}, {1, LeafID{Index: 8}, young}}, false},
		"another life":     {[]step{{1, aside, old}, {2, at, young}}, false},
		"another address":  {[]step{{1, aside, old}, {1, at, moved}}, false},
		"another checksum": {[]step{{1, aside, old}, {1, at, other}}, false},
		"born too late":    {[]step{{1, aside, late}}, false},
	} {
		var line Lineage
		var err error
		for _, s := range c.steps {
			err = errors.Join(err, line.Next(s.inc, s.id, s.l))
		}
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
