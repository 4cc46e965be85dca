package disk

import (
	"errors"
	"testing"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/extent"
)

func TestHeaderRoundTrip(t *testing.T) {
	want := Header{Owner: Identity{Cluster: [16]byte{1, 2}, Chunkserver: 3}, State: StateFormatted, Store: [16]byte{4}}
	b := want.appendTo(nil)
	got, err := parseIdentity(b)
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	var bad *extent.CorruptError
	var newer *extent.VersionError
	for i := range b {
		if _, err := parseIdentity(b[:i]); !errors.As(err, &bad) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		flipped := append([]byte(nil), b...)
		flipped[i] ^= 1
		if _, err := parseIdentity(flipped); !errors.As(err, &bad) && !errors.As(err, &newer) {
			t.Fatalf("flipped at %d: %v", i, err)
		}
	}
}
