package metaserver

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"
)

// Config is the configuration of a metaserver. Default gives the values of a cluster of three zones.
type Config struct {
	// Name tells the metaserver from others, for people; empty: the advertised address.
	Name string `yaml:"name"`
	// Listen is the HOST:PORT of the gRPC services.
	Listen string `yaml:"listen"`
	// Advertise is the HOST:PORT at which others reach it; empty: Listen. Needed when Listen is a wildcard.
	Advertise string `yaml:"advertise"`
	// Dir is the data directory, made if it is missing. It only holds which lease the process has, so that a metaserver that is
	// started again after a kill need not wait for its end; empty: none. Each metaserver has its own.
	Dir string `yaml:"dir"`
	// Etcd are the HOST:PORT or URLs of etcd's members.
	Etcd []string `yaml:"etcd"`
	// Cluster is the cluster's name in etcd: everything is below /ashlar/CLUSTER.
	Cluster string `yaml:"cluster"`
	// Lease is the life of the election's lease, in whole seconds; a metaserver that is killed, and not started again
	// on its Dir, is replaced after that time.
	Lease time.Duration `yaml:"lease"`
	// SealKeyFile holds the key with which CHAP secrets are sealed in etcd: 32 bytes or 64 hexadecimal digits, the same on
	// every metaserver. Empty: CHAP secrets are refused.
	SealKeyFile string `yaml:"seal-key-file"`
	// Replicas is the number of copies of everything, each in a zone of its own.
	Replicas int `yaml:"replicas"`
	// CopysetsPerChunkserver is how many copysets a chunkserver of average capacity has.
	CopysetsPerChunkserver int `yaml:"copysets-per-chunkserver"`
	// CopysetSettle: copysets are made when no chunkserver has registered for this long.
	CopysetSettle time.Duration `yaml:"copyset-settle"`
	// DownAfter: a chunkserver or gateway that is silent for longer is down.
	DownAfter time.Duration `yaml:"down-after"`
	// RecoverAfter: the peers of a chunkserver that is down for longer are replaced on others; 0: never.
	RecoverAfter time.Duration `yaml:"recover-after"`
	// Operations is how many peers are replaced at once in the cluster, OperationsPerChunkserver how many of them copy from
	// or to one chunkserver.
	Operations               int `yaml:"operations"`
	OperationsPerChunkserver int `yaml:"operations-per-chunkserver"`
	// Balance moves copysets to chunkservers that have fewer.
	Balance bool `yaml:"balance"`
	// LeaderMoves is the least time between two moves of a leader for balance; 0: leaders are not moved.
	LeaderMoves time.Duration `yaml:"leader-moves"`
}

// Default returns the defaults.
func Default() Config {
	return Config{
		Listen:                   "127.0.0.1:7400",
		Dir:                      "/var/lib/ashlar/metaserver",
		Etcd:                     []string{"127.0.0.1:2379"},
		Cluster:                  "main",
		Lease:                    5 * time.Second,
		Replicas:                 3,
		CopysetsPerChunkserver:   100,
		CopysetSettle:            3 * time.Second,
		DownAfter:                5 * time.Second,
		RecoverAfter:             10 * time.Minute,
		Operations:               8,
		OperationsPerChunkserver: 2,
		Balance:                  true,
		LeaderMoves:              2 * time.Second,
	}
}

var clusterForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._\-]{0,62}$`)

// Validate reports the first value that can not be used, naming its key.
func (c *Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %q is not HOST:PORT: %w", c.Listen, err)
	}
	if c.Advertise == "" {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return fmt.Errorf("advertise: needed because listen %q is a wildcard: say at which HOST:PORT others reach this metaserver", c.Listen)
		}
	} else if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
		return fmt.Errorf("advertise: %q is not HOST:PORT: %w", c.Advertise, err)
	}
	switch {
	case len(c.Etcd) == 0:
		return errors.New("etcd: the address of at least one member of etcd is needed")
	case !clusterForm.MatchString(c.Cluster):
		return fmt.Errorf("cluster: %q is not a name of letters, digits, '.', '_' and '-', at most 63", c.Cluster)
	case c.Lease < 2*time.Second || c.Lease > time.Minute || c.Lease%time.Second != 0:
		return fmt.Errorf("lease: %v is not a whole number of seconds from 2s to 60s", c.Lease)
	case c.Replicas < 1 || c.Replicas > 7 || c.Replicas%2 == 0:
		return fmt.Errorf("replicas: %d is not an odd number from 1 to 7", c.Replicas)
	case c.CopysetsPerChunkserver < 1 || c.CopysetsPerChunkserver > 1000:
		return fmt.Errorf("copysets-per-chunkserver: %d is not from 1 to 1000", c.CopysetsPerChunkserver)
	case c.CopysetSettle < 0 || c.CopysetSettle > time.Hour:
		return fmt.Errorf("copyset-settle: %v is not from 0s to 1h", c.CopysetSettle)
	case c.DownAfter < time.Second || c.DownAfter > time.Hour:
		return fmt.Errorf("down-after: %v is not from 1s to 1h", c.DownAfter)
	case c.RecoverAfter != 0 && c.RecoverAfter < c.DownAfter:
		return fmt.Errorf("recover-after: %v is less than down-after, %v (0s: never)", c.RecoverAfter, c.DownAfter)
	case c.Operations < 1 || c.Operations > 1000:
		return fmt.Errorf("operations: %d is not from 1 to 1000", c.Operations)
	case c.OperationsPerChunkserver < 1 || c.OperationsPerChunkserver > 100:
		return fmt.Errorf("operations-per-chunkserver: %d is not from 1 to 100", c.OperationsPerChunkserver)
	case c.LeaderMoves < 0:
		return fmt.Errorf("leader-moves: %v is negative", c.LeaderMoves)
	}
	return nil
}

// advertised returns the address that others use.
func (c *Config) advertised() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	return c.Listen
}

// name returns what the metaserver is called.
func (c *Config) name() string {
	if c.Name != "" {
		return c.Name
	}
	return c.advertised()
}
