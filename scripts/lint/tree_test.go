package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// module is the import path of the repository's root.
const module = "github.com/ashlar-storage/ashlar"

// source is one parsed Go file. Paths use slashes and are relative to the repository's root.
type source struct {
	path      string
	dir       string // "." for the root
	pkg       string
	test      bool
	generated bool
	text      string
	fset      *token.FileSet
	file      *ast.File
}

// line gives the position of n for a finding.
func (s source) line(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// imports lists the import paths of the file in the order of the text.
func (s source) imports() []string {
	var out []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			out = append(out, p)
		}
	}
	return out
}

// generatedMark is the line that marks generated Go code (go help generate).
var generatedMark = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// parse makes a source out of a file's text.
func parse(name, text string) (source, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	return source{
		path: name, dir: path.Dir(name), pkg: f.Name.Name, text: text, fset: fset, file: f,
		test:      strings.HasSuffix(name, "_test.go"),
		generated: generatedMark.MatchString(text),
	}, nil
}

// sample parses a bad sample: file name → text.
func sample(t *testing.T, files map[string]string) []source {
	t.Helper()
	var out []source
	for name, text := range files {
		s, err := parse(name, text)
		if err != nil {
			t.Fatalf("bad sample %s: %v", name, err)
		}
		out = append(out, s)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].path < out[j].path })
	return out
}

// root finds the repository: the nearest parent with a go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for range 16 {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("no go.mod above the test's directory")
	return ""
}

// skipped directories hold nothing that belongs to the repository.
func skipped(name string) bool {
	switch name {
	case "bin", "testdata", "ashlar-data", "node_modules", "cache", "out":
		return true
	}
	return strings.HasPrefix(name, ".") && name != "." && name != ".ci"
}

// walk calls f for every regular file of the repository with its path relative to the root.
func walk(t *testing.T, f func(rel, abs string)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != top && skipped(d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		f(filepath.ToSlash(rel), p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tree parses the Go files of the repository.
func tree(t *testing.T) []source {
	t.Helper()
	var out []source
	walk(t, func(rel, abs string) {
		if !strings.HasSuffix(rel, ".go") {
			return
		}
		text, err := os.ReadFile(abs)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parse(rel, string(text))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	})
	if len(out) == 0 {
		t.Fatal("no Go files found: the walk is broken")
	}
	return out
}

// report fails the test with every finding on a line of its own.
func report(t *testing.T, findings []string) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}

// expect checks that the findings of a bad sample are exactly the wanted ones, by substring and in order.
func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d findings, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("finding %d: got %q, want one with %q", i, got[i], want[i])
		}
	}
}

// under tells whether dir is base or below it.
func under(dir, base string) bool {
	return dir == base || strings.HasPrefix(dir, base+"/")
}

// matches tells whether dir meets a pattern: an exact directory, or one that ends in "/..." for a subtree.
func matches(dir, pattern string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return under(dir, base)
	}
	return dir == pattern
}

// matchesAny tells whether dir meets one of the patterns.
func matchesAny(dir string, patterns []string) bool {
	for _, p := range patterns {
		if matches(dir, p) {
			return true
		}
	}
	return false
}
