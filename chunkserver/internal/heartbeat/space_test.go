package heartbeat

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestSpaceMessage: each word of the space is told under its own name.
func TestSpaceMessage(t *testing.T) {
	var s Space
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		v.Field(i).SetInt(int64(i+1) << 33)
	}
	m := reflect.ValueOf(space(&s)).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if got := m.FieldByName(name); !got.IsValid() || got.Uint() != uint64(i+1)<<33 {
			t.Errorf("%s is told as %v", name, got)
		}
	}
	seen := 0
	space(&s).ProtoReflect().Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool { seen++; return true })
	if seen != v.NumField() {
		t.Errorf("%d words are told, not %d", seen, v.NumField())
	}
	if n := space(&Space{Spare: -1}).GetSpare(); n != 0 {
		t.Errorf("less than nothing is told as %d", n)
	}
}
