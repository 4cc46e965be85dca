package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// daemon is what a role runs.
type daemon interface {
	// Run serves until ctx ends or something that can not be mended happens.
	Run(ctx context.Context) error
	// Ready returns nil when the daemon serves, else why not yet.
	Ready() error
}

// env is what a daemon gets from its process.
type env struct {
	log      *zap.Logger
	registry *prometheus.Registry
}

// role is one kind of daemon.
type role struct {
	name, short string
	// config returns a pointer to a configuration with its defaults.
	config func() roleConfig
}

// roleConfig is the configuration of a role.
type roleConfig interface {
	// Base returns the keys that every role has.
	Base() *Common
	// Validate reports the first value that can not be used, naming its key.
	Validate() error
	// Build makes the daemon.
	Build(env) (daemon, error)
}

// Common are the keys that every role has.
type Common struct {
	// AdminListen is the HOST:PORT of the HTTP endpoint for metrics, health and profiles; empty: none.
	AdminListen string `yaml:"admin-listen"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `yaml:"log-level"`
}

// Base returns c.
func (c *Common) Base() *Common { return c }

// daemonCommand returns the command that runs a role.
func daemonCommand(r role) *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:   r.name,
		Short: r.short,
		Long: r.short + `.

Its configuration is a YAML file; environment variables (ASHLAR_ and the key in capitals, with _ for - and .) go over
the file, flags over both. --check-config prints the effective configuration and ends.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := r.config()
			if err := loadConfig(cfg, file, cmd.Flags()); err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return fmt.Errorf("configuration %s: %w", file, err)
			}
			if check {
				text, err := marshalConfig(cfg)
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			log, err := newLogger(os.Stderr, cfg.Base().LogLevel)
			if err != nil {
				return err
			}
			defer log.Sync() //nolint:errcheck // stderr
			return runDaemon(cmd.Context(), r.name, cfg, log)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	cmd.Flags().BoolVar(&check, "check-config", false, "print the effective configuration and end")
	cmd.Flags().String("log-level", "", "debug, info, warn or error")
	cmd.Flags().String("admin-listen", "", "HOST:PORT of metrics, health and profiles")
	return cmd
}

// runDaemon builds and runs one daemon with its admin endpoint until ctx ends.
func runDaemon(ctx context.Context, name string, cfg roleConfig, log *zap.Logger) error {
	log.Info("starting", zap.String("role", name), zap.String("version", version), zap.Int("pid", os.Getpid()))
	registry := newRegistry()
	d, err := cfg.Build(env{log: log, registry: registry})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	if address := cfg.Base().AdminListen; address != "" {
		admin, err := newAdminServer(address, registry, d.Ready)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		group.Go(func() error { return admin.Run(ctx) })
	}
	group.Go(func() error {
		if err := d.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", name, err)
		}
		// The daemon ended: so does its endpoint.
		return errStopped
	})
	err = group.Wait()
	if errors.Is(err, errStopped) {
		err = nil
	}
	log.Info("stopped", zap.String("role", name), zap.Error(err))
	return err
}

// errStopped ends the group of a daemon that stopped cleanly.
var errStopped = errors.New("stopped")
