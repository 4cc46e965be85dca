// Command ashlar is a replicated block store that is attached over iSCSI: every daemon, a whole cluster for one
// machine, and the administrator's verbs.
//
//	ashlar dev                                   a whole cluster on this machine
//	ashlar metaserver|chunkserver|gateway|etcd   one daemon each, --config FILE
//	ashlar volume|target|cluster|chunkserver|copyset …   administration
//	ashlar selftest windows|esxi|linux URL       what such a host makes of a target
//	ashlar fsck DIR                              whether the disk of a chunkserver that is stopped is in order
//
// This package owns flags (cobra), configuration (viper), logs (zap), signals and the admin HTTP endpoint; what the
// daemons do is in their own folders.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/internal/cli"
)

// version is what --version prints and daemons report to the cluster.
const version = "0.1.0"

func main() {
	os.Exit(run(os.Args[1:]))
}

// run returns the exit status. The first SIGINT or SIGTERM ends the context, the second one the process.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop()
	}()
	root := newRoot()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "ashlar: %v\n", err)
		var exit *exitError
		if errors.As(err, &exit) {
			return exit.status
		}
		return 1
	}
	return 0
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "ashlar",
		Short:         "A replicated block store that you attach over iSCSI",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newDev(), newSelftest(), newFsck())
	chunkserverDaemon := daemonCommand(chunkserverRole)
	for _, c := range cli.Commands() {
		// "ashlar chunkserver" is a daemon, "ashlar chunkserver list" asks the metaserver.
		if c.Name() == chunkserverDaemon.Name() {
			chunkserverDaemon.AddCommand(c.Commands()...)
			continue
		}
		root.AddCommand(c)
	}
	root.AddCommand(daemonCommand(etcdRole), daemonCommand(metaserverRole), chunkserverDaemon, daemonCommand(gatewayRole))
	return root
}
