package portal

import (
	"flag"
	"fmt"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// TestServe is a small target over memory, for trying tools on it:
//
//	go test ./gateway/internal/portal -run '^TestServe$' -timeout 0 -serve 127.0.0.1:3261 -size 64 -v
var (
	serveAddr  = flag.String("serve", "", "TestServe listens on this HOST:PORT and serves until it is interrupted")
	serveSize  = flag.Int64("size", 64, "size of its disk, MiB")
	serveBlock = flag.Int("block", 512, "logical block length, bytes")
	servePprof = flag.String("serve-pprof", "", "HOST:PORT for net/http/pprof while it serves")
)

func testLog(t testing.TB) *zap.Logger {
	if *serveAddr != "" {
		return zap.Must(zap.NewDevelopment())
	}
	return zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))
}

func TestServe(t *testing.T) {
	if *serveAddr == "" {
		t.Skip("a server for trying tools on: see -serve")
	}
	cfg := Default()
	cfg.Addresses = []string{*serveAddr}
	size := *serveSize << 20
	m := &mediums{disks: map[uint64]*disk{testVolume: newDisk(size)}}
	p, _ := serverOf(t, cfg, m, func(addr string) target.Config { return exported(addr, size, *serveBlock) })
	if *servePprof != "" {
		go func() { _ = http.ListenAndServe(*servePprof, nil) }()
	}
	fmt.Printf("ready iscsi://%s/%s/0\n", *serveAddr, testTarget)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	stats := p.Stats()
	fmt.Printf("%+v\n%.3f allocations and %.0f bytes per command\n", stats,
		float64(mem.Mallocs)/float64(stats.Session.Commands), float64(mem.TotalAlloc)/float64(stats.Session.Commands))
	time.Sleep(10 * time.Millisecond)
}
