package main

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

var allRoles = []role{etcdRole, metaserverRole, chunkserverRole, gatewayRole}

// TestCommittedFilesAreTheDefaults: each file of configs/ names every key and sets it to its default.
func TestCommittedFilesAreTheDefaults(t *testing.T) {
	for _, r := range allRoles {
		path := filepath.Join("..", "..", "configs", r.name+".yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file map[string]any
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		want, err := toMap(r.config())
		if err != nil {
			t.Fatal(err)
		}
		for key := range want {
			if _, ok := file[key]; !ok {
				t.Errorf("%s: key %s is missing", path, key)
			}
		}
		cfg := r.config()
		if err := loadConfig(cfg, path, nil); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(cfg, r.config()) {
			t.Errorf("%s differs from the defaults: %+v", path, cfg)
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: the defaults are refused: %v", path, err)
		}
	}
}

func TestOrderOfSources(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	write(t, path, "listen: 127.0.0.1:1\nzone: file\nserver: file\n")
	t.Setenv("ASHLAR_ZONE", "environment")
	t.Setenv("ASHLAR_TICK", "250ms")
	t.Setenv("ASHLAR_LOG_LEVEL", "debug")
	t.Setenv("ASHLAR_METASERVERS", "a:1,b:2")
	flags := pflag.NewFlagSet("t", pflag.ContinueOnError)
	flags.String("log-level", "", "")
	if err := flags.Parse([]string{"--log-level", "warn"}); err != nil {
		t.Fatal(err)
	}
	cfg := chunkserverRole.config().(*chunkserverConfig)
	if err := loadConfig(cfg, path, flags); err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "127.0.0.1:1" || cfg.Server != "file" || cfg.Zone != "environment" || cfg.Tick != 250*time.Millisecond ||
		cfg.LogLevel != "warn" || !reflect.DeepEqual(cfg.Metaservers, []string{"a:1", "b:2"}) || cfg.Pool != "default" {
		t.Fatalf("%+v", cfg)
	}
}

func TestBadFilesAreRefusedByLineAndKey(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"listen: 127.0.0.1:1\nlisten-on: x\n", `c.yaml:2: unknown key "listen-on"`},
		{"# comment\n\ntick: soon\n", `c.yaml:3: key "tick": "soon" is not a duration`},
		{"readers: many\n", `c.yaml:1: key "readers": "many" is not a whole number`},
		{"metaservers: {a: b}\n", `c.yaml:1: key "metaservers": must be a list`},
		{"zone: [a]\n", `c.yaml:1: key "zone": must be one value`},
		{"- a\n", `c.yaml:1: the file must be a mapping`},
		{"zone: a\n  b: c\n", "c.yaml: yaml: line 2"},
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		write(t, path, c.text)
		err := loadConfig(chunkserverRole.config(), path, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %s", c.text, err, c.want)
		}
	}
	if err := loadConfig(chunkserverRole.config(), "/does/not/exist.yaml", nil); err == nil {
		t.Error("a missing file was accepted")
	}
}

// TestEffectiveConfigurationCanBeLoaded: what --check-config prints is a configuration file.
func TestEffectiveConfigurationCanBeLoaded(t *testing.T) {
	for _, r := range allRoles {
		text, err := marshalConfig(r.config())
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "c.yaml")
		write(t, path, string(text))
		cfg := r.config()
		if err := loadConfig(cfg, path, nil); err != nil || !reflect.DeepEqual(cfg, r.config()) {
			t.Errorf("%s: %v, %+v", r.name, err, cfg)
		}
	}
}

func TestDevOptions(t *testing.T) {
	good := func() *devOptions {
		return &devOptions{
			dir: "d", portal: "127.0.0.1:3260", meta: "127.0.0.1:7400", metaservers: 2, chunkservers: 3, gateways: 2,
			volume: "demo=4GiB", logLevel: "info",
		}
	}
	o := good()
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if o.volumeName != "demo" || o.volumeSize != 4<<30 || !reflect.DeepEqual(o.metaAddresses(), []string{"127.0.0.1:7400", "127.0.0.1:7401"}) {
		t.Fatalf("%+v", o)
	}
	for want, change := range map[string]func(*devOptions){
		"--volume":       func(o *devOptions) { o.volume = "demo" },
		"--volume: ":     func(o *devOptions) { o.volume = "demo=4GB" },
		"--chunkservers": func(o *devOptions) { o.chunkservers = 2 },
		"--gateways":     func(o *devOptions) { o.gateways = 0 },
		"--zones":        func(o *devOptions) { o.zones = 4 },
		"--portal":       func(o *devOptions) { o.portal = "3260" },
		"--meta":         func(o *devOptions) { o.meta = "127.0.0.1:65500" },
		"--restart":      func(o *devOptions) { o.restart = true },
	} {
		o := good()
		change(o)
		if err := o.complete(); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(want, ": ")) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func TestPlanHasNoPortTwice(t *testing.T) {
	o := &devOptions{
		dir: t.TempDir(), portal: "127.0.0.1:3260", meta: "127.0.0.1:7400", metaservers: 9, chunkservers: 20, gateways: 9,
		volume: "demo=4GiB", logLevel: "info",
	}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(o.dir, "conf"), 0o700); err != nil {
		t.Fatal(err)
	}
	all, err := plan(o)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	claim := func(address, who string) {
		if other, ok := seen[address]; ok {
			t.Errorf("%s and %s both listen on %s", other, who, address)
		}
		seen[address] = who
	}
	for _, i := range all {
		for _, address := range i.addresses() {
			claim(address, i.name())
		}
		if _, err := os.Stat(i.configFile(o.dir)); err != nil {
			t.Error(err)
		}
	}
	if len(all) != 1+9+20+9 {
		t.Fatalf("%d daemons", len(all))
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOccupiedPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test
	i := &instance{role: gatewayRole, number: 1, cfg: gatewayRole.config()}
	i.cfg.Base().AdminListen = l.Addr().String()
	if err := portsFree(t.Context(), []*instance{i}); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Fatalf("got %v", err)
	}
}
