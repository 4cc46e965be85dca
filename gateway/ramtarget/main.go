// Command ramtarget is the gateway's iSCSI engine (portal, session, scsi) over memory instead of the replicated store, to
// measure the engine alone. "make bench-engine" starts it; it is no part of the product.
//
//	go run ./gateway/ramtarget -listen 127.0.0.1:3260 -mib 256
//
// When it serves it prints "ready iscsi://HOST:PORT/IQN/0" on stdout. SIGTERM and SIGINT end it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/ashlar-storage/ashlar/gateway/internal/portal"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"github.com/ashlar-storage/ashlar/storage/ram"
	"go.uber.org/zap"
)

const (
	volume = 1
	name   = "iqn.2026-11.dev.ashlar:ram"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "ramtarget:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, args []string) (err error) {
	f := flag.NewFlagSet("ramtarget", flag.ContinueOnError)
	listen := f.String("listen", "127.0.0.1:3260", "HOST:PORT of the portal")
	mib := f.Int64("mib", 256, "size of the logical unit in MiB")
	latency := f.Duration("latency", 0, "time that an operation of the medium takes; 0: it answers at once")
	prompt := f.Bool("prompt", true, "the medium tells that it answers at once")
	profile := f.String("cpuprofile", "", "file for a CPU profile of the whole run")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *profile != "" {
		w, err := os.Create(*profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(w); err != nil {
			return err
		}
		defer func() { pprof.StopCPUProfile(); _ = w.Close() }()
	}
	store := ram.New(*mib << 20)
	var m scsi.Backend = medium{store}
	if *latency > 0 || !*prompt {
		m = &slow{Backend: m, latency: *latency}
	}
	registry := target.New(mediums{m}, target.Limits{Sessions: 1024, SessionsPerInitiator: 64})
	cfg := portal.Default()
	cfg.Addresses = []string{*listen}
	p, err := portal.New(cfg, registry, zap.NewNop())
	if err != nil {
		return err
	}
	addr := p.Addrs()[0].String()
	if err := registry.Apply(exports(addr, store.Size())); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "ready iscsi://%s/%s/0\n", addr, name)
	return p.Run(ctx)
}

// exports is one target with one logical unit that everybody may use.
func exports(addr string, size int64) target.Config {
	return target.Config{
		Portals: []target.Portal{{Address: addr, Group: 1}},
		Volumes: map[uint64]scsi.UnitConfig{volume: {
			Identity: scsi.Identity{
				NAA: [16]byte{0x60, 15: 1}, Serial: "ram", Vendor: scsi.DefaultVendor, Product: "ram", Revision: "1",
			},
			Capacity: size, BlockLength: 512, Limits: scsi.DefaultLimits(),
		}},
		Targets: []target.Target{{
			Name: name, LUNs: []target.LUN{{Number: 0, Volume: volume}},
			Access: []target.Access{{Initiator: target.AnyInitiator}},
		}},
	}
}

// mediums has one medium for everybody. There is nothing to fence: an operation is over when its command ends.
type mediums struct{ m scsi.Backend }

func (m mediums) Open(uint64, string) scsi.Backend { return m.m }
func (mediums) Release(scsi.Backend)               {}
func (mediums) Abort(uint64, string)               {}
func (mediums) Acknowledged(uint64, string)        {}
