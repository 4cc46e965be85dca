package metarpc

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
)

// TestDiskSpace: what a chunkserver tells of its space is what others are told, word by word, over the wire; a chunkserver of
// an older release tells nothing.
func TestDiskSpace(t *testing.T) {
	var s topology.Space
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		v.Field(i).SetUint(uint64(i+1) << 33)
	}
	m := spaceMessage(s)
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	proto.Reset(m)
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	if got := diskSpace(m); got != s {
		t.Errorf("%+v became %+v", s, got)
	}
	if fields := m.ProtoReflect().Descriptor().Fields().Len(); fields != v.NumField() {
		t.Errorf("the message has %d fields, not %d", fields, v.NumField())
	}
	if diskSpace(nil) != (topology.Space{}) || spaceMessage(topology.Space{}) != nil {
		t.Error("of a chunkserver that tells nothing something is told")
	}
}
