package lint

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// commandMax bounds one command; go vet on cold caches compiles every dependency.
const commandMax = 7 * time.Minute

// run executes a command in dir and returns what it printed on stdout and stderr together.
func run(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%s is not installed", name)
	}
	return out.String(), err
}

// checkFormat runs gofmt over the given files and returns what it would change.
func checkFormat(t *testing.T, dir string, files []string) []string {
	t.Helper()
	out, err := run(t, dir, "gofmt", append([]string{"-l"}, files...)...)
	if err != nil {
		t.Fatalf("gofmt: %v\n%s", err, out)
	}
	return strings.Fields(out)
}

func TestFormat(t *testing.T) {
	var files []string
	for _, s := range tree(t) {
		if !s.generated {
			files = append(files, s.path)
		}
	}
	for _, f := range checkFormat(t, root(t), files) {
		t.Errorf("%s is not formatted: run gofmt -w", f)
	}
}

func TestFormatCatches(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.go"), "package a\n\nvar x = 1\n")
	write(t, filepath.Join(dir, "bad.go"), "package a\nvar   x = 1\n")
	expect(t, checkFormat(t, dir, []string{"good.go", "bad.go"}), "bad.go")
}

// TestVet vets all packages with the tags of the tests, so that no file is left out by its build tag.
func TestVet(t *testing.T) {
	out, err := run(t, root(t), "go", "vet", "-tags", "invariants,e2e", "./...")
	if err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
	}
}

func TestVetCatches(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module bad\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "a.go"), "package a\n\nimport \"fmt\"\n\nfunc f() { fmt.Printf(\"%d\", \"x\") }\n")
	if out, err := run(t, dir, "go", "vet", "./..."); err == nil {
		t.Errorf("go vet passed a wrong format verb:\n%s", out)
	}
}

// TestModTidy checks that go.mod and go.sum say exactly what the source needs.
func TestModTidy(t *testing.T) {
	out, err := run(t, root(t), "go", "mod", "tidy", "-diff")
	if err != nil {
		t.Errorf("go mod tidy -diff: %v\n%s", err, out)
	}
}

// compareTrees lists the files of want that are missing or different in got, and those of got that want
// does not have. Both map a name to a content.
func compareTrees(want, got map[string]string) []string {
	var out []string
	for _, name := range sorted(want) {
		switch text, ok := got[name]; {
		case !ok:
			out = append(out, name+": not in the repository: run make gen and commit it")
		case text != want[name]:
			out = append(out, name+": differs from its .proto file: run make gen and commit it")
		}
	}
	for _, name := range sorted(got) {
		if _, ok := want[name]; !ok {
			out = append(out, name+": no .proto file makes it: delete it")
		}
	}
	return out
}

// pbFiles reads the generated files below dir.
func pbFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".pb.go") {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		out[filepath.ToSlash(rel)] = string(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGenerated makes the generated code anew in a temporary folder and compares it with the committed one.
func TestGenerated(t *testing.T) {
	top := root(t)
	if _, err := os.Stat(filepath.Join(top, "api")); errors.Is(err, fs.ErrNotExist) {
		t.Fatal("no api folder")
	}
	if _, err := exec.LookPath("protoc"); err != nil {
		t.Fatal("protoc is missing: install protobuf-compiler (apt-get install protobuf-compiler)")
	}
	dir := t.TempDir()
	if out, err := run(t, top, "bash", "scripts/gen.sh", dir); err != nil {
		t.Fatalf("scripts/gen.sh: %v\n%s", err, out)
	}
	want := pbFiles(t, filepath.Join(dir, "api"))
	if len(want) == 0 {
		t.Fatal("scripts/gen.sh made nothing")
	}
	report(t, compareTrees(want, pbFiles(t, filepath.Join(top, "api"))))
}

func TestGeneratedCatches(t *testing.T) {
	expect(t, compareTrees(
		map[string]string{"a.pb.go": "1", "b.pb.go": "1", "c.pb.go": "1"},
		map[string]string{"a.pb.go": "1", "b.pb.go": "2", "d.pb.go": "1"}),
		"b.pb.go: differs", "c.pb.go: not in", "d.pb.go: no .proto")
}

// write makes a file for a bad sample.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sorted gives the keys in order.
func sorted(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
