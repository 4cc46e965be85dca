package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/internal/cli"
)

// devOptions are the flags of "ashlar dev".
type devOptions struct {
	dir          string
	portal       string
	meta         string
	metaservers  int
	chunkservers int
	zones        int
	gateways     int
	volume       string
	etcd         []string
	separate     bool
	restart      bool
	logLevel     string

	// what Complete derives
	volumeName string
	volumeSize int64
	binary     string
}

// devPortSpan is how many ports from the meta port on a dev cluster uses: see ports in dev_plan.go.
const devPortSpan = 100

func newDev() *cobra.Command {
	o := &devOptions{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine and export a volume",
		Long: `Run a whole cluster on this machine: etcd, metaservers, chunkservers and gateways. It creates a volume, exports it to
any initiator and prints one line on stdout when it serves:

  ready iscsi://127.0.0.1:3260/iqn.2026-11.dev.ashlar:demo/0

Gateway n listens on the portal's port + n-1 and metaserver n on the meta port + n-1; the other daemons take ports up
to the meta port + 99. With the same --dir the cluster comes back with all its data. SIGINT and SIGTERM stop it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return runDev(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.portal, "portal", "127.0.0.1:3260", "address of the first gateway's iSCSI portal")
	f.StringVar(&o.meta, "meta", "127.0.0.1:7400", "address of the first metaserver")
	f.IntVar(&o.metaservers, "metaservers", 1, "number of metaservers")
	f.IntVar(&o.chunkservers, "chunkservers", 3, "number of chunkservers, at least 3")
	f.IntVar(&o.zones, "zones", 0, "number of zones that the chunkservers are in by turns, at least 3 (default: each in its own)")
	f.IntVar(&o.gateways, "gateways", 1, "number of gateways")
	f.StringVar(&o.volume, "volume", "demo=4GiB", "volume to create and export, NAME=SIZE")
	f.StringSliceVar(&o.etcd, "etcd", nil, "use this etcd instead of an embedded one, HOST:PORT[,…]")
	f.BoolVar(&o.separate, "separate", false, "run every daemon as a process of its own, with DIR/run/ROLE-N.pid and DIR/log/ROLE-N.log")
	f.BoolVar(&o.restart, "restart", false, "with --separate: start a daemon again when it dies")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	cmd.PersistentFlags().StringVar(&o.dir, "dir", "./ashlar-data", "directory of all data, logs and pids")
	cmd.AddCommand(newDevStart(&o.dir))
	return cmd
}

// complete checks the options and derives the rest.
func (o *devOptions) complete() error {
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if o.binary, err = os.Executable(); err != nil {
		return err
	}
	name, size, ok := strings.Cut(o.volume, "=")
	if !ok || name == "" {
		return fmt.Errorf("--volume %q: write NAME=SIZE, such as demo=4GiB", o.volume)
	}
	o.volumeName = name
	if o.volumeSize, err = cli.ParseSize(size); err != nil {
		return fmt.Errorf("--volume: %w", err)
	}
	for _, c := range []struct {
		flag     string
		n, least int
		most     int
	}{{"metaservers", o.metaservers, 1, 9}, {"chunkservers", o.chunkservers, 3, 20}, {"gateways", o.gateways, 1, 9}} {
		if c.n < c.least || c.n > c.most {
			return fmt.Errorf("--%s %d: use %d to %d", c.flag, c.n, c.least, c.most)
		}
	}
	if o.zones == 0 {
		o.zones = o.chunkservers
	}
	if o.zones < 3 || o.zones > o.chunkservers {
		return fmt.Errorf("--zones %d: use 3 to %d", o.zones, o.chunkservers)
	}
	for flag, address := range map[string]string{"portal": o.portal, "meta": o.meta} {
		if _, err := addPort(address, devPortSpan); err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
	}
	if o.restart && !o.separate {
		return errors.New("--restart needs --separate")
	}
	return nil
}

// addPort returns address with n added to its port.
func addPort(address string, n int) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%q is not HOST:PORT", address)
	}
	p, err := strconv.Atoi(port)
	if err != nil || p < 1 || p+n > 65535 {
		return "", fmt.Errorf("port %q of %q: use a number up to %d", port, address, 65535-devPortSpan)
	}
	return net.JoinHostPort(host, strconv.Itoa(p+n)), nil
}

// mustAddPort is addPort for an address that complete has checked.
func mustAddPort(address string, n int) string {
	a, err := addPort(address, n)
	if err != nil {
		panic(err)
	}
	return a
}
