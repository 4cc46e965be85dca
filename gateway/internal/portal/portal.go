package portal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/backoff"
	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/session"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
	"go.uber.org/zap"
)

// Portal serves iSCSI initiators. New, Run once, and Drain or Close at any time.
type Portal struct {
	cfg       Config
	registry  *target.Registry
	pool      *session.Pool
	log       *zap.Logger
	listeners []net.Listener
	counters  counters
	backoff   *backoff.Table
	failed    failedLog
	marks     session.Marks  // of all sessions
	served    sync.WaitGroup // serve of each connection
	stopped   chan struct{}  // closed by shut

	mu struct {
		sync.Mutex
		draining, closing bool

		conns   map[*conn]struct{}
		hosts   map[string]hostCount // by IP address
		logins  int                  // connections that have not finished their login
		runners map[*runner]struct{}
	}
}

// hostCount counts the connections of an IP address, and those of them that have not finished their login.
type hostCount struct{ conns, logins int }

// New listens on the addresses of cfg, which must be valid. Nothing is accepted before Run.
func New(cfg Config, registry *target.Registry, log *zap.Logger) (*Portal, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Login.CommandWindow = session.WindowMin
	cfg.Login.Challenges = login.NewChallenges()
	p := &Portal{
		cfg: cfg, registry: registry, pool: session.NewPool(cfg.MemoryMax), log: log, stopped: make(chan struct{}),
		backoff: backoff.New(cfg.Backoff),
	}
	p.mu.conns = map[*conn]struct{}{}
	p.mu.hosts = map[string]hostCount{}
	p.mu.runners = map[*runner]struct{}{}
	for _, a := range cfg.Addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			p.closeListeners()
			if errors.Is(err, syscall.EADDRINUSE) {
				return nil, fmt.Errorf("portal: %s is in use: another iSCSI target listens there, stop it or choose another address: %w", a, err)
			}
			return nil, fmt.Errorf("portal: can not listen on %s: %w", a, err)
		}
		p.listeners = append(p.listeners, l)
	}
	return p, nil
}

// Addrs returns the addresses that the portal listens on, with the ports that were chosen for 0.
func (p *Portal) Addrs() []net.Addr {
	out := make([]net.Addr, len(p.listeners))
	for i, l := range p.listeners {
		out[i] = l.Addr()
	}
	return out
}

// Run accepts connections until ctx is done or Close is called, then closes all and returns when their goroutines are
// done. The error is of a listener.
func (p *Portal) Run(ctx context.Context) error {
	errs := make(chan error, len(p.listeners))
	for _, l := range p.listeners {
		go func() { errs <- p.accept(l) }()
	}
	stop := context.AfterFunc(ctx, p.shut)
	var first error
	for range p.listeners {
		if err := <-errs; err != nil && first == nil {
			first = err
			p.shut()
		}
	}
	<-p.stopped // Drain closes the listeners, and the sessions go on
	stop()
	p.served.Wait()
	return first
}

// acceptPause is the wait after an error of accept that may pass, such as too many open files.
const acceptPause = 50 * time.Millisecond

// accept serves what comes in on l until it is closed.
func (p *Portal) accept(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			switch {
			case errors.Is(err, net.ErrClosed):
				return nil
			case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
				errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ECONNABORTED):
				p.log.Warn("can not accept a connection", zap.Error(err))
				time.Sleep(acceptPause)
				continue
			}
			return fmt.Errorf("portal: %s: %w", l.Addr(), err)
		}
		p.counters.accepted.Add(1)
		c := p.admit(nc.(*net.TCPConn))
		if c == nil {
			p.counters.refused.Add(1)
			_ = nc.Close()
			continue
		}
		go func() {
			defer p.served.Done()
			defer p.forget(c)
			c.serve()
		}()
	}
}

// admit counts a connection, or returns nil if a limit is reached.
func (p *Portal) admit(nc *net.TCPConn) *conn {
	host := hostOf(nc)
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.mu.hosts[host]
	if p.mu.closing || len(p.mu.conns) >= p.cfg.ConnsMax || n.conns >= p.cfg.ConnsPerAddressMax ||
		p.mu.logins >= p.cfg.LoginsMax || n.logins >= p.cfg.LoginsPerAddressMax {
		return nil
	}
	c := newConn(p, nc, host)
	p.mu.conns[c] = struct{}{}
	p.mu.hosts[host] = hostCount{n.conns + 1, n.logins + 1}
	p.mu.logins++
	p.served.Add(1)
	return c
}

func hostOf(nc *net.TCPConn) string {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return nc.RemoteAddr().String()
}

// loginOver counts a connection as logged in, or given up. It may be called twice.
func (p *Portal) loginOver(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.inLogin {
		c.inLogin = false
		p.mu.logins--
		n := p.mu.hosts[c.host]
		n.logins--
		p.mu.hosts[c.host] = n
	}
}

// forget takes a connection out of the counts.
func (p *Portal) forget(c *conn) {
	p.loginOver(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.conns, c)
	n := p.mu.hosts[c.host]
	if n.conns--; n.conns == 0 {
		delete(p.mu.hosts, c.host)
	} else {
		p.mu.hosts[c.host] = n
	}
}

// keep adds a session, or returns false when the portal is drained or closing.
func (p *Portal) keep(r *runner) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closing || p.mu.draining {
		return false
	}
	p.mu.runners[r] = struct{}{}
	return true
}

// drop takes a session out.
func (p *Portal) drop(r *runner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.runners, r)
}

// runnerOf returns the session at place, or nil.
func (p *Portal) runnerOf(place *target.Session) *runner {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.mu.runners {
		if r.place == place {
			return r
		}
	}
	return nil
}

func (p *Portal) runners() []*runner {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*runner, 0, len(p.mu.runners))
	for r := range p.mu.runners {
		out = append(out, r)
	}
	return out
}

// errClosing says that the gateway stops.
var errClosing = errors.New("portal: the gateway stops")

func (p *Portal) closeListeners() {
	for _, l := range p.listeners {
		_ = l.Close()
	}
}

// shut closes the listeners, all sessions, and all connections that have none. It does not wait.
func (p *Portal) shut() {
	p.closeListeners()
	p.mu.Lock()
	if !p.mu.closing {
		p.mu.closing = true
		close(p.stopped)
	}
	var logins []*conn
	for c := range p.mu.conns {
		if c.inLogin {
			logins = append(logins, c)
		}
	}
	p.mu.Unlock()
	for _, c := range logins {
		_ = c.nc.Close()
	}
	for _, r := range p.runners() {
		r.Close(errClosing)
	}
}

// Drain prepares the end. It stops accepting and asks all initiators to log out, which they have time for until ctx is done.
// Those that are there still get no further command done, and the commands in flight have FinishTimeout to be finished and
// answered. Close follows, and tells those that their sessions are dropped.
func (p *Portal) Drain(ctx context.Context) {
	p.closeListeners()
	p.mu.Lock()
	p.mu.draining = true
	p.mu.Unlock()
	seconds := uint16(1)
	if until, ok := ctx.Deadline(); ok {
		seconds = uint16(min(max(time.Until(until)/time.Second, 1), 3600))
	}
	for _, r := range p.runners() {
		r.requestLogout(seconds)
	}
	if p.await(ctx, (*runner).present) {
		return
	}
	for _, r := range p.runners() {
		r.quiesce()
	}
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.FinishTimeout)
	defer cancel()
	p.await(finish, (*runner).busy)
}

// await waits until no session is what is asked, and returns false if ctx is done before.
func (p *Portal) await(ctx context.Context, is func(*runner) bool) bool {
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for slices.ContainsFunc(p.runners(), is) {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// drainTick is how often Drain looks whether all have left.
const drainTick = 20 * time.Millisecond

// Close closes the listeners and all sessions and connections, and waits for their goroutines until ctx is done. The
// error says how many connections were left then; their writes are fenced.
func (p *Portal) Close(ctx context.Context) error {
	p.shut()
	done := make(chan struct{})
	go func() {
		p.served.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		return fmt.Errorf("portal: %d connections are not closed yet: %w", len(p.mu.conns), ctx.Err())
	}
}
