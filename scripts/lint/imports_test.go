package lint

import (
	"fmt"
	"strings"
	"testing"
)

// rule is one row of the import table. It binds the non-test files of the packages that meet from.
type rule struct {
	from   string   // package directory, or a subtree "dir/..."
	except []string // packages of the subtree that the row does not bind
	inside []string // packages of this module that may be imported; nil: not restricted by this row
	only   string   // "std": nothing from other modules
	ban    []string // import paths, and what lies below them, that are never imported
	why    string
}

// none is the empty list of module packages (nil would mean "not restricted").
var none = []string{}

// noIO is what a package without sockets, files and processes has no use for.
var noIO = []string{"net", "os", "syscall", "golang.org/x/sys"}

// table is the import direction of the whole repository. To let a package import more, edit its row and
// say why in the commit.
var table = []rule{
	{from: "storage/layout", inside: none, only: "std", ban: noIO, why: "layout is arithmetic"},
	{from: "storage/reservation", inside: none, only: "std", ban: noIO, why: "reservation is a pure function"},
	{from: "storage/iscsiname", inside: none, only: "std", ban: noIO, why: "a name is a string"},
	{from: "storage/chunkclient/fieldnum", inside: none, only: "std", ban: noIO, why: "a list of numbers"},
	{from: "storage/chunkclient/protofield", inside: none, ban: noIO, why: "a codec"},
	{from: "storage/stream", inside: []string{"storage/layout"}, ban: []string{"google.golang.org/grpc"}, why: "streams know no batch"},
	{from: "storage/...", inside: []string{"storage/...", "api/..."}, why: "the library never knows a daemon"},

	{from: "gateway/internal/pdu", inside: none, only: "std", ban: noIO, why: "pdu is a codec"},
	{
		from: "gateway/internal/scsi", inside: []string{"gateway/internal/scsi/...", "storage/reservation"},
		only: "std", ban: noIO, why: "scsi never knows iSCSI",
	},
	{
		from: "gateway/internal/scsi/...", except: []string{
			"gateway/internal/scsi", "gateway/internal/scsi/attention", "gateway/internal/scsi/lu",
			"gateway/internal/scsi/thirdparty",
		},
		inside: []string{"storage/reservation", "gateway/internal/scsi/vpd"},
		only:   "std", ban: noIO, why: "a part of scsi stands alone",
	},
	{
		from: "gateway/internal/scsi/attention", inside: []string{"gateway/internal/scsi/sense"},
		only: "std", ban: noIO, why: "a queue of sense codes",
	},
	{
		from: "gateway/internal/scsi/lu",
		inside: []string{
			"gateway/internal/scsi/attention", "gateway/internal/scsi/media", "gateway/internal/scsi/mode", "gateway/internal/scsi/sam",
			"gateway/internal/scsi/sense", "gateway/internal/scsi/thirdparty", "gateway/internal/scsi/vpd", "storage/reservation",
		},
		only: "std", ban: noIO, why: "the logical unit knows no command",
	},
	{
		from:   "gateway/internal/scsi/thirdparty",
		inside: []string{"gateway/internal/scsi/odx", "gateway/internal/scsi/sense", "gateway/internal/scsi/xcopy"},
		only:   "std", ban: noIO, why: "the copy manager joins its codecs and knows no logical unit",
	},
	{
		from: "gateway/internal/login", inside: []string{"gateway/internal/pdu", "storage/iscsiname"},
		only: "std", ban: noIO, why: "login is a pure state machine",
	},
	{from: "gateway/internal/isns", inside: none, only: "std", ban: noIO, why: "isns is a codec"},
	{
		from: "gateway/internal/backoff", inside: none,
		only: "std", ban: noIO, why: "backoff counts and has no clock",
	},
	{
		from:   "gateway/internal/session",
		inside: []string{"gateway/internal/pdu", "gateway/internal/login", "gateway/internal/scsi", "gateway/internal/session/orphan"},
		only:   "std", ban: noIO, why: "session knows no socket, file or clock",
	},
	{
		from: "gateway/internal/session/orphan", inside: []string{"gateway/internal/pdu"},
		only: "std", ban: noIO, why: "a set of tags",
	},
	{
		from: "gateway/internal/...", except: []string{"gateway/internal/portal"},
		ban: []string{"net", module + "/storage/volume"}, why: "portal owns the sockets",
	},
	{
		from: "gateway/internal/...", ban: []string{module + "/storage/volume"},
		why: "only the gateway's root joins its parts to storage/volume",
	},
	{from: "gateway/...", inside: []string{"gateway/...", "storage/...", "api/..."}, why: "daemons meet through api/"},

	{from: "chunkserver/internal/copyset", ban: noIO, why: "copyset is pure"},
	{
		from: "chunkserver/internal/lease", inside: []string{"storage/layout"}, only: "std", ban: noIO,
		why: "the lease is arithmetic",
	},
	{
		from:   "chunkserver/internal/quiet",
		inside: []string{"chunkserver/internal/lease", "chunkserver/internal/sched", "storage/layout"},
		only:   "std", ban: noIO, why: "who goes quiet is decided here, not done",
	},
	{from: "chunkserver/internal/outset", inside: none, ban: noIO, why: "a decision"},
	{from: "chunkserver/internal/latecommit", inside: none, ban: noIO, why: "a list of messages"},
	{from: "chunkserver/internal/proposals", inside: none, only: "std", ban: noIO, why: "a set of proposals"},
	{
		from: "chunkserver/internal/digest", inside: []string{"storage/blockstore", "storage/layout"}, ban: noIO,
		why: "a digest is computed of what it is given",
	},
	{from: "chunkserver/internal/sim/loop", inside: none, only: "std", ban: noIO, why: "a loop knows nothing of what it runs"},
	{from: "chunkserver/internal/sim/liar", inside: []string{"storage/vfs"}, ban: noIO, why: "a disk knows nothing of what is on it"},
	{
		from: "chunkserver/internal/sim/history", inside: []string{"chunkserver/internal/copyset", "storage/layout"}, ban: noIO,
		why: "a history is judged by what it says",
	},
	{
		from: "chunkserver/...", inside: []string{"chunkserver/...", "storage/...", "api/..."},
		why: "daemons meet through api/",
	},

	{from: "metaserver/internal/schedule", ban: noIO, why: "schedule is pure"},
	{
		from: "metaserver/internal/replicas", inside: []string{"storage/layout"}, only: "std", ban: noIO,
		why: "a comparison is pure",
	},
	{
		from: "metaserver/...", inside: []string{"metaserver/...", "storage/...", "api/..."},
		why: "daemons meet through api/",
	},

	{from: "api/...", inside: []string{"api/..."}, why: "api holds generated code and nothing else"},
	{from: "cmd/...", ban: []string{module + "/scripts"}, why: "the product knows no script"},
	{
		from: "cmd/ashlar/initiator/...", inside: none, only: "std",
		why: "the initiator shares no code with the target",
	},
	{
		from: "cmd/ashlar/internal/selftest", inside: []string{"cmd/ashlar/initiator/..."}, only: "std",
		why: "selftest knows no target",
	},
	{
		from: "scripts/e2e/initiator/...", inside: []string{"scripts/e2e/initiator/...", "cmd/ashlar/initiator/..."},
		only: "std", why: "the initiators of the tests share no code with the target",
	},
}

// apiImporters are the packages in which generated messages may appear. Elsewhere the project's own types
// are used.
var apiImporters = []string{
	"api/...",
	"gateway",
	"storage/volume",
	"storage/chunkclient",
	"storage/chunkclient/fieldnum", // its test
	"storage/metaclient",
	"chunkserver",
	"chunkserver/internal/chunkrpc",
	"chunkserver/internal/peernet",
	"chunkserver/internal/heartbeat",
	"metaserver",
	"metaserver/internal/metarpc",
	"metaserver/internal/metastore",
	"cmd/ashlar/...",
}

// isStd tells whether an import path is of the standard library: its first element has no dot.
func isStd(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".")
}

// checkRow applies one row to one file.
func checkRow(r rule, s source) []string {
	if s.test || !matches(s.dir, r.from) || matchesAny(s.dir, r.except) {
		return nil
	}
	var out []string
	for _, p := range s.imports() {
		local, inside := strings.CutPrefix(p, module+"/")
		switch {
		case inside && r.inside != nil && !matchesAny(local, r.inside):
			out = append(out, fmt.Sprintf("%s imports %s: %s", s.path, local, r.why))
		case r.only == "std" && !inside && !isStd(p):
			out = append(out, fmt.Sprintf("%s imports %s, but may use the standard library only: %s", s.path, p, r.why))
		}
		for _, b := range r.ban {
			if under(p, b) {
				out = append(out, fmt.Sprintf("%s imports %s: %s", s.path, p, r.why))
			}
		}
	}
	return out
}

// checkTable applies the import table.
func checkTable(files []source) []string {
	var out []string
	for _, s := range files {
		for _, r := range table {
			out = append(out, checkRow(r, s)...)
		}
	}
	return out
}

// checkAPIImporters finds generated messages outside the rpc packages. Tests may build messages where the
// package under test is one of the importers; scripts are tools beside the product and see the public API
// like any other program.
func checkAPIImporters(files []source) []string {
	var out []string
	for _, s := range files {
		if under(s.dir, "scripts") || matchesAny(s.dir, apiImporters) {
			continue
		}
		for _, p := range s.imports() {
			if strings.HasPrefix(p, module+"/api/") {
				out = append(out, fmt.Sprintf("%s imports %s: generated messages stop at the rpc packages", s.path, p))
			}
		}
	}
	return out
}

// daemons never import each other, their tests included.
var daemons = []string{"gateway", "chunkserver", "metaserver"}

// checkDaemons finds a daemon that imports another one, in tests too: a test that needs two daemons
// belongs to the end-to-end tests.
func checkDaemons(files []source) []string {
	var out []string
	for _, s := range files {
		for _, d := range daemons {
			if !under(s.dir, d) {
				continue
			}
			for _, p := range s.imports() {
				local, ok := strings.CutPrefix(p, module+"/")
				if !ok {
					continue
				}
				for _, other := range daemons {
					if other != d && under(local, other) {
						out = append(out, fmt.Sprintf("%s imports %s: daemons meet only through api/", s.path, local))
					}
				}
			}
		}
	}
	return out
}

func TestImportTable(t *testing.T) {
	files := tree(t)
	report(t, checkTable(files))
	report(t, checkAPIImporters(files))
	report(t, checkDaemons(files))
}

func TestImportTableCatches(t *testing.T) {
	file := func(pkg string, imports ...string) string {
		return "package " + pkg + "\n\nimport (\n\t_ \"" + strings.Join(imports, "\"\n\t_ \"") + "\"\n)\n"
	}
	for _, c := range []struct {
		name, path string
		imports    []string
		want       []string
	}{
		{"layout uses os", "storage/layout/x.go", []string{"os", "fmt"}, []string{"layout is arithmetic"}},
		{"layout uses x/sys", "storage/layout/x.go", []string{"golang.org/x/sys/unix"}, []string{"standard library only", "layout is arithmetic"}},
		{"layout uses vfs", "storage/layout/x.go", []string{module + "/storage/vfs"}, []string{"layout is arithmetic"}},
		{"storage knows a daemon", "storage/raftlog/x.go", []string{module + "/chunkserver/internal/copyset"}, []string{"never knows a daemon"}},
		{"pdu uses zap", "gateway/internal/pdu/x.go", []string{"go.uber.org/zap"}, []string{"pdu is a codec"}},
		{"scsi knows pdu", "gateway/internal/scsi/x.go", []string{module + "/gateway/internal/pdu"}, []string{"scsi never knows iSCSI"}},
		{"session uses net", "gateway/internal/session/x.go", []string{"net/netip"}, []string{"no socket", "portal owns"}},
		{"session knows target", "gateway/internal/session/x.go", []string{module + "/gateway/internal/target"}, []string{"no socket"}},
		{"target uses net", "gateway/internal/target/x.go", []string{"net"}, []string{"portal owns"}},
		{"portal joins the volume", "gateway/internal/portal/x.go", []string{"net", module + "/storage/volume"}, []string{"only the gateway's root"}},
		{"gateway knows chunkserver", "gateway/x.go", []string{module + "/chunkserver"}, []string{"daemons meet through api/"}},
		{"copyset uses net", "chunkserver/internal/copyset/x.go", []string{"net"}, []string{"copyset is pure"}},
		{"schedule uses os", "metaserver/internal/schedule/x.go", []string{"os"}, []string{"schedule is pure"}},
		{"api imports code", "api/meta/v1/x.go", []string{module + "/storage/layout"}, []string{"nothing else"}},
		{"a command runs a script", "cmd/ashlar/x.go", []string{module + "/scripts/e2e/cluster"}, []string{"knows no script"}},
		{"a daemon runs a script", "metaserver/x.go", []string{module + "/scripts/e2e/cluster"}, []string{"daemons meet through api/"}},
		{"the library runs a script", "storage/volume/x.go", []string{module + "/scripts/e2e/load"}, []string{"never knows a daemon"}},
		{"initiator shares the codec", "cmd/ashlar/initiator/wire/x.go", []string{module + "/gateway/internal/pdu"}, []string{"shares no code"}},
		{"test initiator shares the codec", "scripts/e2e/initiator/x.go", []string{module + "/storage/layout"}, []string{"share no code"}},
		{"selftest uses the tests", "cmd/ashlar/internal/selftest/x.go", []string{module + "/scripts/e2e/initiator/peer"}, []string{"knows no script", "knows no target"}},
		{"selftest shares a package", "cmd/ashlar/internal/selftest/x.go", []string{module + "/storage/layout"}, []string{"knows no target"}},
		{"metaserver imports cmd", "metaserver/x.go", []string{module + "/cmd/ashlar"}, []string{"daemons meet through api/"}},
		{"fine", "gateway/x.go", []string{"net", module + "/storage/volume", module + "/api/meta/v1", module + "/gateway/internal/pdu"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, checkTable(sample(t, map[string]string{c.path: file("x", c.imports...)})), c.want...)
		})
	}
	api := sample(t, map[string]string{
		"gateway/internal/target/x.go":      file("x", module+"/api/meta/v1"),
		"storage/volume/x.go":               file("x", module+"/api/chunk/v1"),
		"gateway/internal/target/x_test.go": file("x", module+"/api/meta/v1"),
	})
	expect(t, checkAPIImporters(api), "gateway/internal/target/x.go", "gateway/internal/target/x_test.go")
	both := sample(t, map[string]string{
		"gateway/x_test.go":  file("x", module+"/metaserver"),
		"chunkserver/y.go":   file("x", module+"/chunkserver/internal/copyset"),
		"cmd/ashlar/main.go": file("main", module+"/metaserver", module+"/gateway"),
	})
	expect(t, checkDaemons(both), "gateway/x_test.go imports metaserver")
}
