package lint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checkDependencies compares the direct requirements of go.mod with the table of docs/dependencies.md.
func checkDependencies(gomod, doc string) []string {
	direct := map[string]bool{}
	inside := false
	for l := range strings.Lines(gomod) {
		l = strings.TrimSpace(l)
		switch {
		case l == "require (":
			inside = true
		case l == ")":
			inside = false
		case (inside || strings.HasPrefix(l, "require ")) && l != "" && !strings.Contains(l, "// indirect"):
			direct[strings.Fields(strings.TrimPrefix(l, "require "))[0]] = true
		}
	}
	var out []string
	listed := map[string]bool{}
	for l := range strings.Lines(doc) {
		cells := strings.Split(l, "|")
		if len(cells) != 5 || !strings.Contains(cells[1], ".") {
			continue
		}
		name := strings.TrimSpace(cells[1])
		listed[name] = true
		if !direct[name] {
			out = append(out, name+": in docs/dependencies.md, but go.mod does not require it directly")
		}
	}
	for name := range direct {
		if !listed[name] {
			out = append(out, name+": required by go.mod, but docs/dependencies.md does not say what for")
		}
	}
	return out
}

func TestDependencies(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	report(t, checkDependencies(read("go.mod"), read("docs/dependencies.md")))
}

func TestDependenciesCatches(t *testing.T) {
	const mod = "module m\n\nrequire (\n\ta.b/used v1\n\ta.b/new v1\n)\n\nrequire (\n\ta.b/far v1 // indirect\n)\n"
	const doc = "| module | what for | why |\n|---|---|---|\n| a.b/used | x | y |\n| a.b/gone | x | y |\n"
	expect(t, checkDependencies(mod, doc), "a.b/gone", "a.b/new")
}
