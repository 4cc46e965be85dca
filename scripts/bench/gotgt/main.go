// Command gotgt runs the target engine of github.com/gostor/gotgt over memory, as a baseline for the gateway's own engine.
// "make bench-engine" starts it as a process of its own, because a malformed PDU ends it; it is no part of the product.
//
//	go run ./scripts/bench/gotgt -port 3260 -mib 256
//
// When it serves it prints "ready iscsi://127.0.0.1:PORT/IQN/0" on stdout. SIGTERM ends it. That engine can only listen on
// all addresses of the machine: run it where nobody else can reach it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/ashlar-storage/ashlar/storage/ram"
	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/config"
	_ "github.com/gostor/gotgt/pkg/port/iscsit" // registers the iSCSI driver
	"github.com/gostor/gotgt/pkg/scsi"
)

const (
	// This engine takes the padding of a login's text for text, and ends the connection. With a name of this length the
	// generator of scripts/bench sends no padding.
	name    = "iqn.2026-11.dev.ashlar:gotgtram"
	storage = "ram"
	device  = 1000
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gotgt:", err)
		os.Exit(1)
	}
}

// run serves until the process is ended.
func run(args []string) error {
	f := flag.NewFlagSet("gotgt", flag.ContinueOnError)
	port := f.Int("port", 3260, "TCP port")
	mib := f.Int64("mib", 256, "size of the logical unit in MiB")
	if err := f.Parse(args); err != nil {
		return err
	}
	mem := ram.New(*mib << 20)
	scsi.RegisterBackingStore(storage, func() (api.BackingStore, error) { return &store{mem: mem}, nil })
	scsi.RegisterBackingStore("null", func() (api.BackingStore, error) { return &store{mem: ram.New(0)}, nil })
	portal := net.JoinHostPort("127.0.0.1", strconv.Itoa(*port))
	cfg := &config.Config{
		Storages:     []config.BackendStorage{{DeviceID: device, Path: storage + ":memory", Online: true, BlockShift: 9}},
		ISCSIPortals: []config.ISCSIPortalInfo{{ID: 0, Portal: portal}},
		ISCSITargets: map[string]config.ISCSITarget{name: {
			TPGTs: map[string][]uint64{"1": {0}}, LUNs: map[string]uint64{"0": device},
		}},
	}
	if err := scsi.InitSCSILUMap(cfg); err != nil {
		return err
	}
	driver, err := scsi.NewTargetDriver("iscsi", scsi.NewSCSITargetService())
	if err != nil {
		return err
	}
	if err := driver.NewTarget(name, cfg); err != nil {
		return err
	}
	go announce(portal)
	return driver.Run(*port)
}

// announce says when the port is open.
func announce(portal string) {
	var d net.Dialer
	for range 100 {
		if nc, err := d.DialContext(context.Background(), "tcp", portal); err == nil {
			_ = nc.Close()
			fmt.Fprintf(os.Stdout, "ready iscsi://%s/%s/0\n", portal, name)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// store is a ram.Store as gotgt wants it: it hands out what it allocates for each read.
type store struct {
	scsi.BaseBackingStore
	mem *ram.Store
}

// Open and the other methods implement api.BackingStore.
func (s *store) Open(*api.SCSILu, string) error { s.DataSize = uint64(s.mem.Size()); return nil }
func (*store) Close(*api.SCSILu) error          { return nil }
func (*store) Init(*api.SCSILu, string) error   { return nil }
func (*store) Exit(*api.SCSILu) error           { return nil }
func (s *store) Size(*api.SCSILu) uint64        { return uint64(s.mem.Size()) }

func (s *store) Read(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	return b, s.mem.ReadAt(b, off)
}

func (s *store) Write(b []byte, off int64) error      { return s.mem.WriteAt(b, off) }
func (*store) DataSync(int64, int64) error            { return nil }
func (*store) DataAdvise(int64, int64, uint32) error  { return nil }
func (*store) Unmap([]api.UnmapBlockDescriptor) error { return nil }
