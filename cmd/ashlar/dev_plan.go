package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ashlar-storage/ashlar/chunkserver"
	"github.com/ashlar-storage/ashlar/gateway"
	"github.com/ashlar-storage/ashlar/metaserver"
)

// The ports of a dev cluster, from the meta port on; docs/operations.md has the table.
const (
	portEtcd             = 10
	portEtcdPeer         = 11
	portEtcdAdmin        = 12
	portChunkserver      = 20
	portMetaserverAdmin  = 40
	portChunkserverAdmin = 50
	portGatewayAdmin     = 80
)

// devCopysets is how many copysets a chunkserver of a dev cluster has: a machine with few cores gathers more in each
// sync when there are fewer.
const devCopysets = 12

// instance is one daemon of a dev cluster.
type instance struct {
	role   role
	number int
	cfg    roleConfig
}

func (i *instance) name() string { return fmt.Sprintf("%s-%d", i.role.name, i.number) }

func (i *instance) configFile(dir string) string {
	return filepath.Join(dir, "conf", i.name()+".yaml")
}
func (i *instance) logFile(dir string) string { return filepath.Join(dir, "log", i.name()+".log") }
func (i *instance) dataDir(dir string) string { return filepath.Join(dir, i.name()) }
func (i *instance) pidFile(dir string) string { return filepath.Join(dir, "run", i.name()+".pid") }

// addresses returns all that the instance listens on.
func (i *instance) addresses() []string {
	out := []string{i.cfg.Base().AdminListen}
	switch c := i.cfg.(type) {
	case *etcdConfig:
		out = append(out, c.Listen, c.PeerListen)
	case *metaserverConfig:
		out = append(out, c.Listen)
	case *chunkserverConfig:
		out = append(out, c.Listen)
	case *gatewayConfig:
		out = append(out, c.Portals...)
	}
	return out
}

// metaAddresses returns where the metaservers listen.
func (o *devOptions) metaAddresses() []string {
	var out []string
	for n := range o.metaservers {
		out = append(out, mustAddPort(o.meta, n))
	}
	return out
}

// etcdAddresses returns where etcd listens.
func (o *devOptions) etcdAddresses() []string {
	if len(o.etcd) > 0 {
		return o.etcd
	}
	return []string{mustAddPort(o.meta, portEtcd)}
}

// plan decides on the daemons of the cluster and writes their configuration files, in the order in which they start.
func plan(o *devOptions) ([]*instance, error) {
	seal := filepath.Join(o.dir, "seal.key")
	if err := makeSealKey(seal); err != nil {
		return nil, err
	}
	var all []*instance
	add := func(r role, n int, cfg roleConfig, adminPort int) {
		cfg.Base().AdminListen = mustAddPort(o.meta, adminPort)
		cfg.Base().LogLevel = o.logLevel
		all = append(all, &instance{role: r, number: n, cfg: cfg})
	}
	if len(o.etcd) == 0 {
		c := etcdRole.config().(*etcdConfig)
		c.Dir, c.Listen, c.PeerListen = filepath.Join(o.dir, "etcd-1"), mustAddPort(o.meta, portEtcd), mustAddPort(o.meta, portEtcdPeer)
		add(etcdRole, 1, c, portEtcdAdmin)
	}
	for n := range o.metaservers {
		add(metaserverRole, n+1, &metaserverConfig{Config: o.metaserver(n, seal)}, portMetaserverAdmin+n)
	}
	for n := range o.chunkservers {
		add(chunkserverRole, n+1, &chunkserverConfig{Config: o.chunkserver(n)}, portChunkserverAdmin+n)
	}
	for n := range o.gateways {
		c := gateway.Default()
		c.Name, c.Portals, c.Metaservers = fmt.Sprintf("gateway-%d", n+1), []string{mustAddPort(o.portal, n)}, o.metaAddresses()
		add(gatewayRole, n+1, &gatewayConfig{Config: c}, portGatewayAdmin+n)
	}
	for _, i := range all {
		if err := i.cfg.Validate(); err != nil {
			return nil, fmt.Errorf("%s: %w", i.name(), err)
		}
		text, err := marshalConfig(i.cfg)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(i.configFile(o.dir), text, 0o600); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (o *devOptions) metaserver(n int, seal string) metaserver.Config {
	c := metaserver.Default()
	c.Name, c.Listen, c.Etcd, c.SealKeyFile = fmt.Sprintf("metaserver-%d", n+1), mustAddPort(o.meta, n), o.etcdAddresses(), seal
	c.Dir = filepath.Join(o.dir, fmt.Sprintf("metaserver-%d", n+1))
	c.CopysetsPerChunkserver = devCopysets
	c.CopysetSettle = time.Second
	return c
}

func (o *devOptions) chunkserver(n int) chunkserver.Config {
	c := chunkserver.Default()
	c.Dir = filepath.Join(o.dir, fmt.Sprintf("chunkserver-%d", n+1))
	c.Listen, c.Metaservers = mustAddPort(o.meta, portChunkserver+n), o.metaAddresses()
	c.Zone, c.Server = fmt.Sprintf("zone-%d", n%o.zones+1), fmt.Sprintf("server-%d", n+1)
	return c
}

// makeSealKey makes the key that CHAP secrets are sealed with, unless it is there.
func makeSealKey(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return os.WriteFile(path, []byte(hex.EncodeToString(key)+"\n"), 0o600)
}
