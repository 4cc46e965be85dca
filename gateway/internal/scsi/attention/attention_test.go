package attention

import (
	"slices"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
)

const (
	deviceReset     sense.Code = 0x062903
	modeChanged     sense.Code = 0x062A01
	capacityChanged sense.Code = 0x062A09
	lunsChanged     sense.Code = 0x063F0E
)

func TestOrder(t *testing.T) {
	var q Queue
	for _, code := range []sense.Code{powerOn, capacityChanged, powerOn, lunsChanged} {
		q.Add(code)
	}
	q.Drop(capacityChanged)
	for _, want := range []sense.Code{powerOn, lunsChanged} {
		if code, ok := q.Take(); !ok || code != want {
			t.Fatalf("%v %v, want %v", code, ok, want)
		}
	}
	if code, ok := q.Take(); ok {
		t.Fatalf("%v is left", code)
	}
	for i := range queueMax {
		q.Add(sense.New(6, 0x10, byte(i)))
	}
	q.Add(lunsChanged)
	if code, _ := q.Take(); code != powerOn {
		t.Errorf("overflow gave %v", code)
	}
	if _, ok := q.Take(); ok {
		t.Error("overflow left more than one")
	}
	q.Add(lunsChanged)
	q.Reset(deviceReset)
	if code, _ := q.Take(); code != deviceReset {
		t.Errorf("reset gave %v", code)
	}
	if _, ok := q.Take(); ok || q.pending.Load() {
		t.Error("reset left more than one")
	}
}

func TestRestored(t *testing.T) {
	overflow := []sense.Code{powerOn}
	for name, c := range map[string]struct {
		meanwhile []sense.Code // added after the condition was taken
		reset     sense.Code
		want      []sense.Code
	}{
		"alone":    {want: []sense.Code{modeChanged}},
		"first":    {meanwhile: []sense.Code{lunsChanged}, want: []sense.Code{modeChanged, lunsChanged}},
		"again":    {meanwhile: []sense.Code{lunsChanged, modeChanged}, want: []sense.Code{lunsChanged, modeChanged}},
		"reset":    {reset: deviceReset, want: []sense.Code{deviceReset}},
		"overflow": {meanwhile: []sense.Code{1, 2, 3, 4, 5, 6, 7, 8}, want: overflow},
	} {
		var q Queue
		q.Add(modeChanged)
		taken, _ := q.Take()
		for _, code := range c.meanwhile {
			q.Add(code)
		}
		if c.reset != 0 {
			q.Reset(c.reset)
		}
		q.Restore(taken)
		var got []sense.Code
		for code, ok := q.Take(); ok; code, ok = q.Take() {
			got = append(got, code)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
