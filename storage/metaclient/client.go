package metaclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// Protocol is the version of the control protocol that this package speaks.
const Protocol = "1"

// The metadata keys of each call.
const (
	// ProtocolKey carries Protocol.
	ProtocolKey = "ashlar-protocol"
	// RequestKey carries 32 hexadecimal digits that name one call, however often it is sent.
	RequestKey = "ashlar-request"
)

// AdminTimeout bounds an administration call whose context has no deadline.
const AdminTimeout = 15 * time.Second

// Limits.
const (
	// addressesMax bounds the connections of a client: those of Dial and those that metaservers named.
	addressesMax = 16
	// hopsMax bounds how often in a row a call follows NotActive without a pause.
	hopsMax = 3
	// messageMax bounds a received message in bytes: the exports of a large cluster come in one.
	messageMax = 64 << 20
)

// The pauses between two attempts of a call.
const (
	pauseMin = 50 * time.Millisecond
	pauseMax = time.Second
)

// ErrNoAddress is returned by Dial when it is given nothing to connect to.
var ErrNoAddress = errors.New("metaclient: no metaserver address given")

// Options change how a Client works. The zero value is usable.
type Options struct {
	// Log receives what is worth knowing about failovers, at debug and info level; nil: nothing is logged.
	Log *zap.Logger
	// AttemptTimeout bounds one attempt of a call, so that a metaserver which hangs does not use up the whole of the
	// call's time; 0: 4 s.
	AttemptTimeout time.Duration
	// DialOptions are added to those of every connection, for example transport credentials; without them
	// connections are not encrypted.
	DialOptions []grpc.DialOption
}

// Client asks whichever metaserver is active. It is safe for use by several goroutines.
type Client struct {
	log     *zap.Logger
	attempt time.Duration
	dial    []grpc.DialOption

	mu struct {
		sync.Mutex
		// addresses are those of Dial, then those that metaservers named.
		addresses []string
		given     int
		conns     map[string]*grpc.ClientConn
		// current is the index of the address to ask first.
		current int
		closed  bool
	}
}

// Dial makes a client of the metaservers at addresses (HOST:PORT each). It connects when first asked, so it fails
// only for addresses that can not be right.
func Dial(addresses []string, o Options) (*Client, error) {
	c := &Client{log: o.Log, attempt: o.AttemptTimeout}
	if c.log == nil {
		c.log = zap.NewNop()
	}
	if c.attempt <= 0 {
		c.attempt = 4 * time.Second
	}
	c.dial = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: pauseMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: pauseMax},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 4 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageMax)),
	}, o.DialOptions...)
	for _, a := range addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("metaclient: %q is not HOST:PORT: %w", a, err)
		}
		if !slices.Contains(c.mu.addresses, a) {
			c.mu.addresses = append(c.mu.addresses, a)
		}
	}
	switch n := len(c.mu.addresses); {
	case n == 0:
		return nil, ErrNoAddress
	case n > addressesMax:
		return nil, fmt.Errorf("metaclient: %d addresses given, the limit is %d", n, addressesMax)
	}
	c.mu.given = len(c.mu.addresses)
	c.mu.conns = map[string]*grpc.ClientConn{}
	return c, nil
}

// Close ends all connections; calls in flight fail with codes.Canceled.
func (c *Client) Close() error {
	c.mu.Lock()
	conns := c.mu.conns
	c.mu.conns, c.mu.closed = nil, true
	c.mu.Unlock()
	var errs []error
	for _, conn := range conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Admin returns the administration service. A call follows the active metaserver until it is answered or its context
// ends; without a deadline it ends after AdminTimeout. A gRPC status error says which metaserver was asked last and why
// it did not answer.
func (c *Client) Admin() metav1.AdminClient {
	return metav1.NewAdminClient(&follower{c: c, timeout: AdminTimeout, settle: true})
}

// Node returns the service of chunkservers and gateways. A call follows the active metaserver until it is answered or
// its context ends; give it a deadline. WatchExports of this service is one stream that ends with the metaserver's
// activity: see Client.WatchExports for one that goes on.
func (c *Client) Node() metav1.NodeClient {
	return metav1.NewNodeClient(&follower{c: c})
}

// Addresses returns the addresses that the client knows, those given to Dial first.
func (c *Client) Addresses() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mu.addresses)
}

// errClosed ends the calls of a client that was closed.
var errClosed = status.Error(codes.Canceled, "metaclient: the client is closed")

// conn returns the address to ask now and its connection.
func (c *Client) conn() (string, *grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return "", nil, errClosed
	}
	addr := c.mu.addresses[c.mu.current]
	if conn := c.mu.conns[addr]; conn != nil {
		return addr, conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, c.dial...)
	if err != nil {
		return addr, nil, err
	}
	c.mu.conns[addr] = conn
	return addr, conn, nil
}

// next makes the address after addr the one to ask, unless another call did so already.
func (c *Client) next(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.addresses[c.mu.current] == addr {
		c.mu.current = (c.mu.current + 1) % len(c.mu.addresses)
	}
}

// follow makes active the address to ask. It returns false when active is addr itself or can not be used.
func (c *Client) follow(addr, active string) bool {
	if active == "" || active == addr {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.mu.addresses, active)
	if i < 0 {
		if _, _, err := net.SplitHostPort(active); err != nil || len(c.mu.addresses) >= addressesMax {
			return false
		}
		i = len(c.mu.addresses)
		c.mu.addresses = append(c.mu.addresses, active)
	}
	if c.mu.current != i {
		c.log.Info("following the active metaserver", zap.String("from", addr), zap.String("active", active))
	}
	c.mu.current = i
	return true
}

// WatchExports calls f with everything that gateways export, first at once and then after each change, until ctx ends
// or f returns an error, which is returned. It reconnects to whichever metaserver is active and never calls f with a
// lower revision than before; f owns what it gets. Calls of f do not overlap.
func (c *Client) WatchExports(ctx context.Context, gateway uint64, f func(*metav1.Exports) error) error {
	var seen int64
	pause := pauseMin
	for {
		got, err := c.watchOnce(ctx, gateway, &seen, f)
		var stop *stopError
		if errors.As(err, &stop) {
			return stop.err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if got {
			pause = pauseMin
		}
		c.log.Debug("exports: the stream ended, connecting again", zap.Error(err))
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, pauseMax)
	}
}

// stopError carries the error of a watcher's own function.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

// watchOnce follows one stream to its end and says whether it brought anything.
func (c *Client) watchOnce(ctx context.Context, gateway uint64, seen *int64, f func(*metav1.Exports) error) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addr, conn, err := c.conn()
	if err != nil {
		return false, err
	}
	stream, err := metav1.NewNodeClient(conn).WatchExports(outgoing(ctx, newRequestID()), &metav1.WatchExportsRequest{Gateway: gateway})
	if err != nil {
		c.redirect(addr, err)
		return false, err
	}
	got := false
	for {
		e, err := stream.Recv()
		if err != nil {
			c.redirect(addr, err)
			return got, err
		}
		got = true
		if e.GetRevision() < *seen {
			continue
		}
		*seen = e.GetRevision()
		if err := f(e); err != nil {
			return true, &stopError{err}
		}
	}
}

// redirect chooses the address to ask after err came from addr.
func (c *Client) redirect(addr string, err error) bool {
	if c.follow(addr, activeOf(err)) {
		return true
	}
	c.next(addr)
	return false
}
