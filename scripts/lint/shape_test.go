package lint

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"regexp"
	"sort"
	"strings"
	"testing"
)

// Limits of size. Generated code and tests are not counted.
const (
	funcLinesMax    = 70
	packageLinesMax = 3000
)

// checkPackageComments finds packages in which no file has a package comment.
func checkPackageComments(files []source) []string {
	has := map[string]bool{}
	for _, s := range files {
		key := s.dir + " (package " + strings.TrimSuffix(s.pkg, "_test") + ")"
		ok := s.generated || s.file.Doc != nil && strings.TrimSpace(s.file.Doc.Text()) != ""
		has[key] = has[key] || ok
	}
	var out []string
	for key, ok := range has {
		if !ok {
			out = append(out, key+": no package comment")
		}
	}
	sort.Strings(out)
	return out
}

// checkInit finds init functions: wiring belongs to the composition root.
func checkInit(files []source) []string {
	var out []string
	for _, s := range files {
		if s.generated {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				out = append(out, s.line(f)+": init function")
			}
		}
	}
	return out
}

// dumps are package names that say nothing about what is inside.
var dumps = map[string]bool{
	"util": true, "utils": true, "common": true, "types": true, "helpers": true, "helper": true,
	"misc": true, "shared": true, "base": true, "lib": true,
}

// checkNames finds packages with a name that says nothing.
func checkNames(files []source) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range files {
		name := strings.TrimSuffix(s.pkg, "_test")
		if dumps[name] || dumps[path.Base(s.dir)] {
			if !seen[s.dir] {
				out = append(out, s.dir+": a package of this name collects anything")
			}
			seen[s.dir] = true
		}
	}
	return out
}

// checkFuncLines finds functions longer than funcLinesMax, from "func" to the closing brace.
func checkFuncLines(files []source) []string {
	var out []string
	for _, s := range files {
		if s.test || s.generated {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
			if n > funcLinesMax {
				out = append(out, fmt.Sprintf("%s: %s has %d lines (limit %d)", s.line(f), f.Name.Name, n, funcLinesMax))
			}
		}
	}
	return out
}

// checkPackageLines finds packages longer than packageLinesMax.
func checkPackageLines(files []source) []string {
	lines := map[string]int{}
	for _, s := range files {
		if !s.test && !s.generated {
			lines[s.dir] += strings.Count(s.text, "\n")
		}
	}
	var out []string
	for dir, n := range lines {
		if n > packageLinesMax {
			out = append(out, fmt.Sprintf("%s has %d lines (limit %d)", dir, n, packageLinesMax))
		}
	}
	sort.Strings(out)
	return out
}

// leftover matches notes about work not done. Its words are split here so that this file is not a finding.
var leftover = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b|panic\("(not impl|unimpl)`)

// checkLeftovers finds notes about work not done in the text of a file.
func checkLeftovers(name, text string) []string {
	return grep(name, text, leftover, "left open")
}

// machinePath matches absolute paths of one machine or user.
var machinePath = regexp.MustCompile(`(^|[^\w.\-/])/(wor` + `k|far` + `m|hom` + `e/\w+|Use` + `rs/\w+|ro` + `ot/go|tm` + `p/ash)/`)

// checkMachinePaths finds paths of the machine on which somebody worked.
func checkMachinePaths(name, text string) []string {
	return grep(name, text, machinePath, "path of a machine")
}

// grep finds the lines of text that match.
func grep(name, text string, re *regexp.Regexp, what string) []string {
	var out []string
	for i, l := range strings.Split(text, "\n") {
		if m := re.FindString(l); m != "" {
			out = append(out, fmt.Sprintf("%s:%d: %s: %q", name, i+1, what, strings.TrimSpace(m)))
		}
	}
	return out
}

// eachText calls f for the repository's text files of the given endings ("" for files without one).
func eachText(t *testing.T, endings []string, f func(name, text string)) {
	t.Helper()
	n := 0
	walk(t, func(rel, abs string) {
		for _, e := range endings {
			if path.Ext(rel) != e {
				continue
			}
			b, err := os.ReadFile(abs)
			if err != nil {
				t.Fatal(err)
			}
			n++
			f(rel, string(b))
		}
	})
	if n == 0 {
		t.Fatalf("no files with endings %q: the walk is broken", endings)
	}
}

func TestPackageComments(t *testing.T) { report(t, checkPackageComments(tree(t))) }
func TestNoInit(t *testing.T)          { report(t, checkInit(tree(t))) }
func TestPackageNames(t *testing.T)    { report(t, checkNames(tree(t))) }
func TestFunctionLines(t *testing.T)   { report(t, checkFuncLines(tree(t))) }
func TestPackageLines(t *testing.T)    { report(t, checkPackageLines(tree(t))) }

func TestLeftovers(t *testing.T) {
	eachText(t, []string{".go", ".proto", ".sh", ".yaml", ".yml", ".md", ""}, func(name, text string) {
		if !generatedMark.MatchString(text) {
			report(t, checkLeftovers(name, text))
		}
	})
}

func TestMachinePaths(t *testing.T) {
	eachText(t, []string{".go", ".proto", ".sh", ".yaml", ".yml", ".md", ".mod", ".json", ".txt", ""}, func(name, text string) {
		report(t, checkMachinePaths(name, text))
	})
}

func TestShapeCatches(t *testing.T) {
	long := func(lines int) string {
		return "// Package x is long.\npackage x\n\nfunc f() {\n" + strings.Repeat("\t_ = 0\n", lines-2) + "}\n"
	}
	t.Run("package comment", func(t *testing.T) {
		expect(t, checkPackageComments(sample(t, map[string]string{
			"a/a.go": "package a\n", "b/b.go": "// Package b is fine.\npackage b\n", "b/c.go": "package b\n",
			"c/c.go": "//go:build linux\n\npackage c\n",
		})), "a (package a)", "c (package c)")
	})
	t.Run("init", func(t *testing.T) {
		expect(t, checkInit(sample(t, map[string]string{
			"a/a.go": "package a\n\ntype t int\n\nfunc (t) init() {}\n\nfunc init() {}\n",
		})), "a/a.go:7: init")
	})
	t.Run("names", func(t *testing.T) {
		expect(t, checkNames(sample(t, map[string]string{
			"a/util/a.go": "package util\n", "b/helpers/b.go": "package b\n", "c/pdu/c.go": "package pdu\n",
		})), "a/util", "b/helpers")
	})
	t.Run("function lines", func(t *testing.T) {
		expect(t, checkFuncLines(sample(t, map[string]string{
			"a/a.go": long(funcLinesMax), "b/b.go": long(funcLinesMax + 1), "b/b_test.go": long(funcLinesMax + 9),
			"c/c.go": "// Code generated by hand. DO NOT EDIT.\n" + long(funcLinesMax+9),
		})), "b/b.go:4: f has 71 lines")
	})
	t.Run("package lines", func(t *testing.T) {
		expect(t, checkPackageLines(sample(t, map[string]string{
			"a/a.go": long(2000), "a/b.go": long(1000), "b/b.go": long(2000), "b/b_test.go": long(2000),
		})), "a has 3006 lines")
	})
	t.Run("leftovers", func(t *testing.T) {
		expect(t, checkLeftovers("a.go", "x\n// TO"+"DO: later\nMASTODON\n// FIX"+"ME\npanic(\"not impl"+"emented\")\n"),
			"a.go:2", "a.go:4", "a.go:5")
	})
	t.Run("machine paths", func(t *testing.T) {
		expect(t, checkMachinePaths("a.md", "see /wor"+"k/main/x\nnet/wor"+"k/x\n`/hom"+"e/me/x`\n./far"+"m/x\n/var/lib/ashlar\n"),
			"a.md:1", "a.md:3")
	})
}
