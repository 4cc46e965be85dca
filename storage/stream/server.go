package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

const (
	// helloWait bounds the time from a connection's begin to its hello.
	helloWait = 5 * time.Second
	// strangersMax bounds the connections whose hello is waited for.
	strangersMax = 1024
	// acceptPause is how long nobody is accepted after the process had no room for another connection.
	acceptPause = 50 * time.Millisecond
)

// Service is what a server does with the streams of one purpose.
type Service struct {
	// Max is the longest payload that is accepted, in bytes.
	Max int
	// Check may refuse a hello, with Refuse. It may be nil.
	Check func(*Hello) error
	// Serve serves a stream until that ends, or ctx does. The stream is closed when it returns.
	Serve func(ctx context.Context, c *Conn)
}

// Config configures a Server.
type Config struct {
	// Cluster and Self are whom a hello has to mean.
	Cluster [16]byte
	Self    layout.ChunkserverID
	// Services are what is served.
	Services map[Purpose]Service
	// Logger may be nil.
	Logger *zap.Logger
}

// Server takes the connections of a listener apart: those that begin with a hello are streams and go to their service,
// others go to whoever accepts from Others.
type Server struct {
	cfg    Config
	lis    net.Listener
	others others
	wg     sync.WaitGroup
	// strangers has a place for each connection whose hello is waited for.
	strangers chan struct{}
}

// NewServer returns a server for the connections of lis, which Run closes.
func NewServer(lis net.Listener, cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &Server{
		cfg: cfg, lis: lis, strangers: make(chan struct{}, strangersMax),
		others: others{address: lis.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})},
	}
}

// Others returns the listener of what are no streams.
func (s *Server) Others() net.Listener { return &s.others }

// Run serves until ctx ends or the listener fails. When it returns, all streams have ended.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	defer s.others.Close()                                       //nolint:errcheck // it has no error
	defer context.AfterFunc(ctx, func() { _ = s.lis.Close() })() // Accept returns
	for {
		nc, err := s.lis.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED):
			time.Sleep(acceptPause)
			continue
		default:
			_ = s.lis.Close()
			return fmt.Errorf("stream: %w", err)
		}
		select {
		case s.strangers <- struct{}{}:
			s.wg.Go(func() { s.meet(ctx, nc) })
		default:
			_ = nc.Close() // too many that say nothing
		}
	}
}

// meet finds out what a connection is.
func (s *Server) meet(ctx context.Context, nc net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	c, serve, err := s.hello(ctx, nc)
	stop()
	<-s.strangers
	switch {
	case err != nil:
		s.cfg.Logger.Debug("connection refused", zap.Stringer("from", nc.RemoteAddr()), zap.Error(err))
		_ = nc.Close()
	case c != nil:
		serve(ctx, c)
		c.Close()
	}
}

// hello reads the first bytes. It returns a stream and what serves it, or neither when the connection is another one's.
func (s *Server) hello(ctx context.Context, nc net.Conn) (*Conn, func(context.Context, *Conn), error) {
	_ = nc.SetDeadline(time.Now().Add(helloWait)) // what fails here fails below too
	first := make([]byte, prefixSize)
	n := 0
	for n < len(magic) && string(first[:n]) == magic[:n] {
		k, err := nc.Read(first[n:])
		if n += k; err != nil && n < len(magic) {
			return nil, nil, fmt.Errorf("stream: %w", err)
		}
	}
	tcp, ok := nc.(*net.TCPConn)
	if string(first[:min(n, len(magic))]) != magic || !ok {
		_ = nc.SetDeadline(time.Time{})
		s.others.give(ctx, &begun{nc, first[:n]})
		return nil, nil, nil
	}
	b, err := readSealed(tcp, first[:n])
	if err != nil {
		return nil, nil, err
	}
	var h Hello
	if err := h.parse(b); err != nil {
		return nil, nil, err
	}
	a := answer{}
	service, err := s.check(&h, &a)
	if err != nil {
		a.code, a.text = NotReady, err.Error()
		if r := (*RefusedError)(nil); errors.As(err, &r) {
			a.code, a.text = r.Code, r.Reason
		}
	}
	if _, werr := tcp.Write(a.append(nil)); err != nil || werr != nil {
		return nil, nil, errors.Join(err, werr)
	}
	_ = tcp.SetDeadline(time.Time{})
	c, err := newConn(tcp, service.Max)
	if err != nil {
		return nil, nil, err
	}
	c.From = h.From
	return c, service.Serve, nil
}

// check refuses what is not meant for us.
func (s *Server) check(h *Hello, a *answer) (service Service, err error) {
	if a.version, err = h.negotiate(); err != nil {
		return service, err
	}
	service, ok := s.cfg.Services[h.Purpose]
	switch {
	case !ok:
		return service, Refuse(BadPurpose, "no streams of purpose %d are served here", h.Purpose)
	case h.Cluster != s.cfg.Cluster:
		return service, Refuse(BadCluster, "cluster %x, this is %x", h.Cluster, s.cfg.Cluster)
	case h.To != 0 && h.To != s.cfg.Self:
		return service, Refuse(BadChunkserver, "this is chunkserver %d, not %d", s.cfg.Self, h.To)
	case service.Check != nil:
		return service, service.Check(h)
	}
	return service, nil
}

// others is the listener of what are no streams.
type others struct {
	address net.Addr
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// give waits until somebody accepts the connection.
func (o *others) give(ctx context.Context, c net.Conn) {
	select {
	case o.conns <- c:
		return
	case <-o.closed:
	case <-ctx.Done():
	}
	_ = c.Close()
}

// Accept returns the next connection.
func (o *others) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. Streams go on.
func (o *others) Close() error {
	o.once.Do(func() { close(o.closed) })
	return nil
}

// Addr returns the address of the server.
func (o *others) Addr() net.Addr { return o.address }

// begun is a connection whose first bytes were read.
type begun struct {
	net.Conn
	first []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}
