package lint

import (
	"fmt"
	"go/ast"
	"testing"
)

// pure are the packages that take time and chance as inputs: a state machine that gets inputs and returns
// outputs, so that a test or a simulation drives every one of its steps.
var pure = []string{
	"gateway/internal/session",
	"gateway/internal/login",
	"chunkserver/internal/copyset",
	"metaserver/internal/schedule",
	"storage/layout",
}

// impure are the calls that a pure package never makes. time.Duration and time.Time as values are fine.
var impure = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"},
}

// checkPurity finds clock calls, go statements and package-level math/rand in the pure packages.
func checkPurity(files []source) []string {
	var out []string
	for _, s := range files {
		if s.test || !matchesAny(s.dir, pure) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				out = append(out, fmt.Sprintf("%s: go statement in a pure package", s.line(n)))
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok {
					return true
				}
				for _, name := range impure[x.Name] {
					if n.Sel.Name == name {
						out = append(out, fmt.Sprintf("%s: %s.%s in a pure package", s.line(n), x.Name, name))
					}
				}
			}
			return true
		})
	}
	return out
}

func TestPurity(t *testing.T) { report(t, checkPurity(tree(t))) }

func TestPurityCatches(t *testing.T) {
	const bad = `package x

import "time"

func f(d time.Duration) {
	_ = time.Now()
	time.Sleep(d)
	<-time.After(d)
	go f(d)
}
`
	expect(t, checkPurity(sample(t, map[string]string{
		"gateway/internal/session/x.go":      bad,
		"gateway/internal/session/x_test.go": bad,
		"gateway/internal/portal/x.go":       bad,
	})),
		"session/x.go:6: time.Now", "session/x.go:7: time.Sleep", "session/x.go:8: time.After", "session/x.go:9: go statement")
}
