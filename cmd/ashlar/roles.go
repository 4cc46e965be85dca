package main

import (
	"github.com/ashlar-storage/ashlar/chunkserver"
	"github.com/ashlar-storage/ashlar/gateway"
	"github.com/ashlar-storage/ashlar/metaserver"
)

// metaserverConfig is the file of a metaserver.
type metaserverConfig struct {
	Common            `yaml:",squash"`
	metaserver.Config `yaml:",squash"`
}

var metaserverRole = role{
	name:  "metaserver",
	short: "Run a metaserver: it keeps what there is in etcd; of several one is active",
	config: func() roleConfig {
		return &metaserverConfig{Common{AdminListen: "127.0.0.1:7440", LogLevel: "info"}, metaserver.Default()}
	},
}

// Build implements roleConfig.
func (c *metaserverConfig) Build(e env) (daemon, error) {
	return metaserver.New(c.Config, metaserver.Options{Log: e.log, Registry: e.registry, Version: version})
}

// chunkserverConfig is the file of a chunkserver.
type chunkserverConfig struct {
	Common             `yaml:",squash"`
	chunkserver.Config `yaml:",squash"`
}

var chunkserverRole = role{
	name:  "chunkserver",
	short: "Run a chunkserver: one process for the data of one disk",
	config: func() roleConfig {
		return &chunkserverConfig{Common{AdminListen: "127.0.0.1:7450", LogLevel: "info"}, chunkserver.Default()}
	},
}

// Build implements roleConfig.
func (c *chunkserverConfig) Build(e env) (daemon, error) {
	return chunkserver.New(c.Config, chunkserver.Options{
		Log: e.log, Registry: e.registry, Version: version, AdminAddress: c.AdminListen,
	})
}

// gatewayConfig is the file of a gateway.
type gatewayConfig struct {
	Common         `yaml:",squash"`
	gateway.Config `yaml:",squash"`
}

var gatewayRole = role{
	name:  "gateway",
	short: "Run a gateway: the iSCSI target that hosts attach to",
	config: func() roleConfig {
		return &gatewayConfig{Common{AdminListen: "127.0.0.1:7480", LogLevel: "info"}, gateway.Default()}
	},
}

// Build implements roleConfig.
func (c *gatewayConfig) Build(e env) (daemon, error) {
	return gateway.New(c.Config, gateway.Options{
		Log: e.log, Registry: e.registry, Version: version, AdminAddress: c.AdminListen,
	})
}

var (
	_ daemon = (*metaserver.Server)(nil)
	_ daemon = (*chunkserver.Server)(nil)
	_ daemon = (*gateway.Gateway)(nil)
)
