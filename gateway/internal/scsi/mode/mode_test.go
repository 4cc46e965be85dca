package mode

import (
	"bytes"
	"testing"
)

var unit = Unit{Default: DescriptorSense, Now: WriteProtect, SenseMax: 28}

func TestSelectTakesWhatSenseGives(t *testing.T) {
	all := unit.Append(nil, All, AllSubpages, Current)
	if got, fault := unit.Select(all); fault != nil || got != unit.Now {
		t.Fatalf("%v, %+v", got, fault)
	}
	if got, fault := unit.Select(unit.Append(nil, All, AllSubpages, Default)); fault != nil || got != DescriptorSense {
		t.Fatalf("defaults: %v, %+v", got, fault)
	}
	if got, fault := unit.Select(nil); fault != nil || got != unit.Now {
		t.Fatalf("nothing: %v, %+v", got, fault)
	}
	// Cut at every byte: only whole pages are taken.
	whole := map[int]bool{0: true}
	for n := 0; n < len(all); {
		g, _ := find(all, n)
		n += g.length
		whole[n] = true
	}
	for n := range all {
		if _, fault := unit.Select(all[:n]); (fault == nil) != whole[n] || fault != nil && !fault.Cut {
			t.Errorf("%d bytes: %+v", n, fault)
		}
	}
}

// TestSelectChangesWhatIsChangeable flips every bit of every page.
func TestSelectChangesWhatIsChangeable(t *testing.T) {
	for i := range pages {
		g := &pages[i]
		page, mask := g.append(nil, unit, Current), g.append(nil, unit, Changeable)
		for at := g.header(); at < len(page); at++ {
			for bit := byte(1); bit != 0; bit <<= 1 {
				page[at] ^= bit
				got, fault := unit.Select(page)
				if mask[at]&bit != 0 {
					if fault != nil || got == unit.Now {
						t.Errorf("page %02X/%02X byte %d bit %02X: %v, %+v", g.code, g.subpage, at, bit, got, fault)
					}
				} else if fault == nil || fault.At != at || fault.Cut {
					t.Errorf("page %02X/%02X byte %d bit %02X: %v, %+v", g.code, g.subpage, at, bit, got, fault)
				}
				page[at] ^= bit
			}
		}
	}
}

func TestAppend(t *testing.T) {
	extension := unit.Append(nil, Control, ControlExtension, Current)
	if want := append([]byte{0x4A, 1, 0, 0x1C, 1, 0, 28}, make([]byte, 25)...); !bytes.Equal(extension, want) {
		t.Errorf("% X", extension)
	}
	for _, none := range [][2]byte{{0, 0}, {Caching, 1}, {Control, 2}, {0x3E, AllSubpages}} {
		if p := unit.Append(nil, none[0], none[1], Current); len(p) != 0 {
			t.Errorf("page %02X/%02X: % X", none[0], none[1], p)
		}
	}
	if !Known(All) || !Known(Caching) || Known(0) {
		t.Error("known pages")
	}
}

// FuzzSelect: any list is judged without reading beyond it, and a fault lies within it.
func FuzzSelect(f *testing.F) {
	f.Add(unit.Append(nil, All, AllSubpages, Current))
	f.Add([]byte{0x4A, 1, 0xFF, 0xFF})
	f.Add([]byte{0x0A, 0x0A, 0x24})
	f.Fuzz(func(t *testing.T, list []byte) {
		got, fault := unit.Select(list)
		if fault != nil && !fault.Cut && (fault.At < 0 || fault.At >= len(list)) {
			t.Fatalf("%+v of %d bytes", fault, len(list))
		}
		if fault == nil && got&^(DescriptorSense|WriteProtect) != 0 {
			t.Fatalf("settings %b", got)
		}
	})
}
