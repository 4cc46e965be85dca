package portal

import (
	"fmt"
	"net"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/backoff"
	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// Config is the configuration of a Portal.
type Config struct {
	// Addresses are the HOST:PORT to listen on; HOST may be empty for all, PORT 0 for any.
	Addresses []string
	// Port is the target port that all addresses are.
	Port target.Port
	// Login is what is negotiated. CommandWindow is not looked at: a login promises session.WindowMin, and the session
	// opens its window with the first response.
	Login login.Config

	// Window is how many commands a session may have outstanding.
	Window int
	// MemoryMax bounds the data of all sessions in memory, in bytes, and SessionMemoryMax those of one that were not
	// sent unasked. Half of MemoryMax may be reserved for what initiators send unasked.
	MemoryMax, SessionMemoryMax int64

	// ConnsMax bounds all connections, ConnsPerAddressMax those of one IP address, and LoginsMax those of both that have
	// not finished their login, LoginsPerAddressMax of one IP address.
	ConnsMax, ConnsPerAddressMax, LoginsMax, LoginsPerAddressMax int
	// Backoff is how those are held off who fail to authenticate.
	Backoff backoff.Config

	// AnnounceLUNs has initiators told at once (Async Message) when they see other LUNs than before. Linux rescans its host
	// then; others ignore it and find the unit attention.
	AnnounceLUNs bool

	// LoginTimeout bounds the login phase of a connection.
	LoginTimeout time.Duration
	// PingInterval is how long a connection may be silent before the initiator is asked whether it is there, and
	// PingTimeout how long it has for the answer: longer than a minute, for hosts are paused and programs sleep that long, and
	// lose their unit attentions with the session. 0 for PingInterval: it is not asked.
	PingInterval, PingTimeout time.Duration
	// SendTimeout is how long a write to a connection may take without the peer taking all of it.
	SendTimeout time.Duration
	// FinishTimeout bounds the wait for commands in flight when the portal is drained.
	FinishTimeout time.Duration
	// ReplaceTimeout bounds the wait for an old session to end when its initiator logs in again.
	ReplaceTimeout time.Duration
}

// Default returns a configuration for all of the common initiators.
func Default() Config {
	l := login.DefaultConfig()
	l.FirstBurstLength = 64 << 10 // each command of a window reserves as much
	l.MaxConnections = 4
	l.TaskReporting = []login.TaskReporting{
		login.TaskReportingRFC3720, login.TaskReportingResponseFence, login.TaskReportingFastAbort,
	}
	l.CommandWindow = session.WindowMin
	return Config{
		Addresses:           []string{"127.0.0.1:3260"},
		Port:                target.Port{Group: 1, RelativeID: 1},
		Login:               l,
		Window:              128,
		MemoryMax:           1 << 30,
		SessionMemoryMax:    128 << 20,
		ConnsMax:            4096,
		ConnsPerAddressMax:  512,
		LoginsMax:           1024,
		LoginsPerAddressMax: 256,
		Backoff:             backoff.Default(),
		AnnounceLUNs:        true,
		LoginTimeout:        15 * time.Second,
		PingInterval:        5 * time.Second,
		PingTimeout:         90 * time.Second,
		SendTimeout:         30 * time.Second,
		FinishTimeout:       3 * time.Second,
		ReplaceTimeout:      5 * time.Second,
	}
}

// Validate reports the first value that can not be used.
func (c *Config) Validate() error {
	if len(c.Addresses) == 0 {
		return fmt.Errorf("portal: no address to listen on")
	}
	for _, a := range c.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("portal: %q is not HOST:PORT: %w", a, err)
		}
	}
	if err := c.Login.Validate(); err != nil {
		return err
	}
	if err := c.Backoff.Validate(); err != nil {
		return err
	}
	for _, f := range []struct {
		name      string
		v, lo, hi int64
	}{
		{"Port.Group", int64(c.Port.Group), 1, 1<<16 - 1},
		{"Port.RelativeID", int64(c.Port.RelativeID), 1, 1<<16 - 1},
		{"Window", int64(c.Window), session.WindowMin, session.WindowMax},
		{"Login.MaxConnections", int64(c.Login.MaxConnections), 1, session.ConnMax},
		{"Login.ErrorRecoveryLevel", int64(c.Login.ErrorRecoveryLevel), 0, 0},
		{"MemoryMax", c.MemoryMax, 4 * session.BufferMax, 1 << 50},
		{"SessionMemoryMax", c.SessionMemoryMax, session.BufferMax, c.MemoryMax},
		{"ConnsMax", int64(c.ConnsMax), 1, 1 << 16},
		{"ConnsPerAddressMax", int64(c.ConnsPerAddressMax), 1, 1 << 16},
		{"LoginsMax", int64(c.LoginsMax), 1, 1 << 16},
		{"LoginsPerAddressMax", int64(c.LoginsPerAddressMax), 1, 1 << 16},
		{"LoginTimeout", int64(c.LoginTimeout), int64(time.Millisecond), int64(time.Hour)},
		{"PingInterval", int64(c.PingInterval), 0, int64(time.Hour)},
		{"PingTimeout", int64(c.PingTimeout), int64(time.Millisecond), int64(time.Hour)},
		{"SendTimeout", int64(c.SendTimeout), int64(time.Millisecond), int64(time.Hour)},
		{"FinishTimeout", int64(c.FinishTimeout), 0, int64(time.Hour)},
		{"ReplaceTimeout", int64(c.ReplaceTimeout), int64(time.Millisecond), int64(time.Hour)},
	} {
		if f.v < f.lo || f.v > f.hi {
			return fmt.Errorf("portal: %s is %d, must be %d to %d", f.name, f.v, f.lo, f.hi)
		}
	}
	return nil
}
