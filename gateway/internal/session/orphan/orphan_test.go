package orphan

import (
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

func TestSet(t *testing.T) {
	var o Set
	if o.Has(1) || o.Take(1, true) {
		t.Error("an empty set has a transfer")
	}
	o.Add(1)
	if !o.Has(1) || o.Take(2, true) || !o.Take(1, false) || !o.Take(1, true) || o.Has(1) || o.Take(1, true) {
		t.Error("a transfer does not end with its last data")
	}
	o = Set{}
	for ttt := range pdu.TTT(Max + 1) {
		o.Add(ttt)
	}
	if len(o.open) != Max || o.Has(0) || !o.Has(1) || !o.Has(Max) {
		t.Errorf("%d transfers, the oldest is there: %v", len(o.open), o.Has(0))
	}
}
