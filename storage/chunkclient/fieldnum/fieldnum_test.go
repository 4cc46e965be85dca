package fieldnum

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"strconv"
	"strings"
	"testing"

	chunkv1 "github.com/ashlar-storage/ashlar/api/chunk/v1"
)

// constants reads the constants of this package from its source: their names in lower case, and their values.
func constants(t *testing.T) map[string]int {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "fieldnum.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		lit, ok := spec.Values[0].(*ast.BasicLit)
		if !ok || len(spec.Names) != 1 {
			t.Fatalf("%s is not one plain number", spec.Names[0].Name)
		}
		v, err := strconv.Atoi(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.ToLower(spec.Names[0].Name)] = v
		return false
	})
	return out
}

// TestNumbers: there is a constant for each field of each message, with its number, and none besides.
func TestNumbers(t *testing.T) {
	want := map[string]int{}
	messages := chunkv1.File_api_chunk_v1_chunk_proto.Messages()
	for i := range messages.Len() {
		m := messages.Get(i)
		for j := range m.Fields().Len() {
			f := m.Fields().Get(j)
			name := strings.ToLower(string(m.Name()) + strings.ReplaceAll(string(f.Name()), "_", ""))
			if _, twice := want[name]; twice {
				t.Errorf("two fields would have the constant %s", name)
			}
			want[name] = int(f.Number())
			if f.Number() > 15 {
				t.Errorf("%s: package protofield appends numbers up to 15", f.FullName())
			}
		}
	}
	got := constants(t)
	if len(want) < 30 || !maps.Equal(got, want) {
		t.Errorf("constants %v\nfields    %v", got, want)
	}
}
