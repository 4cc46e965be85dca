package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator"
)

// Pauses between attempts, and how long one command may take before its session is given up (the default of
// Linux is 30 s).
const (
	dialPauseMin   = 20 * time.Millisecond
	dialPauseMax   = 500 * time.Millisecond
	busyPause      = 20 * time.Millisecond
	CommandTimeout = 30 * time.Second
)

// Client keeps one session to a logical unit: it connects again, at the next portal of its list, when the
// session ends.
type Client struct {
	cfg        initiator.Config
	portals    []string
	timeout    atomic.Int64 // time.Duration
	reconnects atomic.Int64

	mu struct {
		sync.Mutex // held while connecting
		sess       *initiator.Session
		portal     int
		blockLen   int
		blocks     uint64
		connected  bool // once
	}
}

// NewClient makes a client that is not connected yet. cfg.Portal is replaced by the portals in turn.
func NewClient(cfg initiator.Config, portals ...string) *Client {
	c := &Client{cfg: cfg, portals: portals}
	c.SetTimeout(CommandTimeout)
	return c
}

// SetTimeout changes how long one command may take before its session is given up (CommandTimeout); it holds
// from the next command on.
func (c *Client) SetTimeout(d time.Duration) { c.timeout.Store(int64(d)) }

// Reconnects counts the sessions after the first one.
func (c *Client) Reconnects() int64 { return c.reconnects.Load() }

// Session returns the live session, or connects until ctx ends.
func (c *Client) Session(ctx context.Context) (*initiator.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.mu.sess; s != nil {
		select {
		case <-s.Done():
			s.Close()
			c.mu.sess = nil
			c.mu.portal = (c.mu.portal + 1) % len(c.portals)
		default:
			return s, nil
		}
	}
	pause := dialPauseMin
	for {
		s, err := c.dialLocked(ctx)
		if err == nil {
			if c.mu.connected {
				c.reconnects.Add(1)
			}
			c.mu.sess, c.mu.connected = s, true
			return s, nil
		}
		c.mu.portal = (c.mu.portal + 1) % len(c.portals)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w (last: %w)", ctx.Err(), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, dialPauseMax)
	}
}

// dialLocked connects once and learns the geometry.
func (c *Client) dialLocked(ctx context.Context) (*initiator.Session, error) {
	cfg := c.cfg
	cfg.Portal = c.portals[c.mu.portal]
	s, err := initiator.Dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err = s.Ready(ready); err == nil {
		c.mu.blocks, c.mu.blockLen, err = s.Capacity(ready)
	}
	if err == nil && (c.mu.blockLen == 0 || BlockLen%c.mu.blockLen != 0) {
		err = fmt.Errorf("logical blocks of %d bytes", c.mu.blockLen)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Capacity connects and tells the size of the logical unit in blocks of BlockLen.
func (c *Client) Capacity(ctx context.Context) (uint64, error) {
	if _, err := c.Session(ctx); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.blocks / uint64(BlockLen/c.mu.blockLen), nil
}

// LogicalBlock is the length of a logical block in bytes; 0 before the first session.
func (c *Client) LogicalBlock() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.blockLen
}

// Use moves the client to one portal; the present session, if any, is closed.
func (c *Client) Use(portal string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.portals, c.mu.portal = []string{portal}, 0
	if c.mu.sess != nil {
		c.mu.sess.Close()
		c.mu.sess = nil
	}
}

// Close drops the session.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.sess != nil {
		c.mu.sess.Close()
		c.mu.sess = nil
	}
}

// errUnknown wraps the error of a command that may or may not have taken effect.
var errUnknown = errors.New("outcome unknown")

// try runs one command on the present session and repeats it while the target asks for that. Anything but
// success means that a mutation's outcome is unknown.
func (c *Client) try(ctx context.Context, busy *atomic.Int64, f func(context.Context, *initiator.Session, int) error) error {
	s, err := c.Session(ctx)
	if err != nil {
		return err
	}
	blockLen := c.LogicalBlock()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.timeout.Load()))
	defer cancel()
	for {
		err := f(ctx, s, blockLen)
		if err == nil {
			return nil
		}
		if !initiator.Retryable(err) {
			return fmt.Errorf("%w: %w", errUnknown, err)
		}
		busy.Add(1)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errUnknown, err)
		case <-time.After(busyPause):
		}
	}
}
