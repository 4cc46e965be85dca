package gateway

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Config is the configuration of a gateway.
type Config struct {
	// Name identifies the gateway for ever; its target portal group tag and relative port identifier are tied to it.
	Name string `yaml:"name"`
	// Portals are the HOST:PORT that initiators connect to, and that SendTargets announces; IPv6 in brackets. One that is
	// every address of the machine is announced as the address that the host came to, and only by this gateway.
	Portals []string `yaml:"portals"`
	// Metaservers are the HOST:PORT of all metaservers.
	Metaservers []string `yaml:"metaservers"`
	// InFlight bounds the bytes of data on their way to and from the store, of all volumes together.
	InFlight int64 `yaml:"in-flight-bytes"`
	// ISNS is where targets are registered; by default nowhere.
	ISNS ISNSConfig `yaml:"isns"`
}

// Default returns the configuration that a gateway has unless its file says otherwise.
func Default() Config {
	return Config{
		Name:        "gateway-1",
		Portals:     []string{"127.0.0.1:3260"},
		Metaservers: []string{"127.0.0.1:7400"},
		InFlight:    256 << 20,
		ISNS:        ISNSConfig{Interval: 5 * time.Minute},
	}
}

// Validate reports the first value that can not be used, naming its key.
func (c *Config) Validate() error {
	switch {
	case c.Name == "":
		return errors.New("name: a gateway needs a name of its own")
	case len(c.Portals) == 0:
		return errors.New("portals: at least one HOST:PORT is needed")
	case len(c.Metaservers) == 0:
		return errors.New("metaservers: at least one HOST:PORT is needed")
	case c.InFlight < 16<<20:
		return fmt.Errorf("in-flight-bytes: %d is less than 16 MiB, one command's data", c.InFlight)
	}
	if err := c.ISNS.validate(); err != nil {
		return err
	}
	for key, list := range map[string][]string{"portals": c.Portals, "metaservers": c.Metaservers} {
		for _, a := range list {
			if _, _, err := net.SplitHostPort(a); err != nil {
				return fmt.Errorf("%s: %q is not HOST:PORT: %w", key, a, err)
			}
		}
	}
	return nil
}
