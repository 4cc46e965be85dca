package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// etcdConfig is the configuration of a single embedded etcd, for one machine. A cluster of machines uses an etcd of its
// own.
type etcdConfig struct {
	Common `yaml:",squash"`
	// Dir is the data directory.
	Dir string `yaml:"dir"`
	// Listen is the HOST:PORT for clients.
	Listen string `yaml:"listen"`
	// PeerListen is the HOST:PORT for peers, of which there are none.
	PeerListen string `yaml:"peer-listen"`
}

var etcdRole = role{
	name:  "etcd",
	short: "Run an embedded etcd with one member, for trying ashlar out on one machine",
	config: func() roleConfig {
		return &etcdConfig{
			Common: Common{LogLevel: "warn"},
			Dir:    "/var/lib/ashlar/etcd", Listen: "127.0.0.1:2379", PeerListen: "127.0.0.1:2380",
		}
	},
}

// Validate implements roleConfig.
func (c *etcdConfig) Validate() error {
	if c.Dir == "" || c.Listen == "" || c.PeerListen == "" {
		return errors.New("dir, listen and peer-listen are needed")
	}
	return nil
}

// Build implements roleConfig.
func (c *etcdConfig) Build(e env) (daemon, error) { return &etcdDaemon{cfg: c, log: e.log}, nil }

type etcdDaemon struct {
	cfg   *etcdConfig
	log   *zap.Logger
	ready atomic.Bool
}

// Ready implements daemon.
func (d *etcdDaemon) Ready() error {
	if !d.ready.Load() {
		return errors.New("etcd is starting")
	}
	return nil
}

// etcdStart bounds how long etcd may take to serve.
const etcdStart = 30 * time.Second

// Run implements daemon.
func (d *etcdDaemon) Run(ctx context.Context) error {
	cfg := embed.NewConfig()
	cfg.Name = "ashlar"
	cfg.Dir = d.cfg.Dir
	client, peer := url.URL{Scheme: "http", Host: d.cfg.Listen}, url.URL{Scheme: "http", Host: d.cfg.PeerListen}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// Nothing reads the past, and hosts that attach make a lot of it.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "5m"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(d.log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)))
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start on %s in %s: %w", d.cfg.Listen, d.cfg.Dir, err)
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	case <-ctx.Done():
		return nil
	case <-time.After(etcdStart):
		return fmt.Errorf("not ready within %v", etcdStart)
	}
	d.ready.Store(true)
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return err
	case <-e.Server.StopNotify():
		return errors.New("etcd stopped")
	}
}
