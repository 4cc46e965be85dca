package gateway

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/isns"
)

// ISNSConfig says where targets are registered, so that hosts find them by iSNS (RFC 4171).
type ISNSConfig struct {
	// Server is the HOST:PORT of an iSNS server; empty: nothing is registered.
	Server string `yaml:"server"`
	// Entity is the Entity Identifier of the cluster, the same on all of its gateways; empty: it is made of the cluster's id.
	Entity string `yaml:"entity"`
	// Interval is the time between two registrations. The server forgets the cluster after three of them without one.
	Interval time.Duration `yaml:"interval"`
}

// validate reports the first value that can not be used, naming its key.
func (c *ISNSConfig) validate() error {
	if c.Server == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Server); err != nil {
		return fmt.Errorf("isns.server: %q is not HOST:PORT: %w", c.Server, err)
	}
	if n := len(c.Entity); n != 0 && n < 3 || n > 255 {
		return fmt.Errorf("isns.entity: %d bytes, an Entity Identifier has 3 to 255", n)
	}
	if c.Interval < isnsIntervalMin || c.Interval > 24*time.Hour {
		return fmt.Errorf("isns.interval: %v, must be %v to 24h", c.Interval, isnsIntervalMin)
	}
	return nil
}

const (
	isnsIntervalMin = 10 * time.Second
	// isnsTimeout bounds a connection to the server, all requests of one registration included; isnsStop that of the last one.
	isnsTimeout, isnsStop = 10 * time.Second, 2 * time.Second
	// isnsRetry is the pause after a registration that failed.
	isnsRetry = 10 * time.Second
)

// registrar keeps the cluster registered with an iSNS server. Every gateway registers the whole of it, because an iSCSI name
// belongs to one entity only.
type registrar struct {
	cfg  ISNSConfig
	log  *zap.Logger
	self uint64

	changed chan struct{} // cap 1
	mu      struct {
		sync.Mutex
		exports *metav1.Exports // the last one; not written
	}

	// Of run.
	known  *isns.Registration // what the server has; nil: not known
	failed bool               // the last registration; told once
	period time.Duration      // for how long the server keeps it
	id     uint16             // of the last transaction
}

func newRegistrar(cfg ISNSConfig, self uint64, cluster []byte, log *zap.Logger) *registrar {
	if cfg.Entity == "" {
		cfg.Entity = "ashlar-" + hex.EncodeToString(cluster)
	}
	return &registrar{cfg: cfg, log: log.With(zap.String("isns", cfg.Server)), self: self, changed: make(chan struct{}, 1)}
}

// set tells what is exported from now on. It returns at once. A nil r is one that is turned off.
func (r *registrar) set(m *metav1.Exports) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.mu.exports = m
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// run registers until ctx ends, then takes this gateway's portals out, or all if no other gateway is up.
func (r *registrar) run(ctx context.Context) error {
	timer := time.NewTimer(r.cfg.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), isnsStop)
			defer cancel()
			r.leave(last)
			return ctx.Err()
		case <-r.changed:
		case <-timer.C:
		}
		attempt, cancel := context.WithTimeout(ctx, isnsTimeout)
		err := r.sync(attempt)
		cancel()
		r.tell(ctx, err)
		next := r.cfg.Interval
		if r.period > 0 { // the server wants to hear more often
			next = min(next, max(r.period/3, time.Second))
		}
		if err != nil {
			next = min(next, isnsRetry)
		}
		timer.Reset(next)
	}
}

// tell logs when registrations begin to fail, and when they work again.
func (r *registrar) tell(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil && !r.failed:
		r.log.Warn("targets can not be registered", zap.Error(err))
	case err == nil && r.failed:
		r.log.Info("targets are registered again")
	}
	r.failed = err != nil
}

// sync has the server know what is exported.
func (r *registrar) sync(ctx context.Context) error {
	want, _, _ := r.wanted(ctx)
	if want == nil {
		return nil
	}
	if len(want.Targets) == 0 || len(want.Portals) == 0 {
		if r.known == nil {
			return nil
		}
		err := r.send(ctx, []isns.Request{want.Deregister(r.known.Targets[0])})
		if err == nil {
			r.known = nil
		}
		return err
	}
	source := ""
	if r.known != nil {
		source = r.known.Targets[0]
	}
	err := r.send(ctx, want.Register(source, r.known == nil || !r.known.Equal(want)))
	if refused, ok := errors.AsType[*isns.StatusError](err); ok {
		// The server does not know the source any more, or another one: what it has is replaced in two steps.
		r.known = nil
		r.log.Debug("registering anew", zap.Stringer("refused", refused.Status))
		if err = r.send(ctx, want.Register("", false)); err == nil {
			err = r.send(ctx, want.Register("", true))
		}
	}
	if err == nil {
		r.known = want
	}
	return err
}

// leave takes out what goes with this gateway.
func (r *registrar) leave(ctx context.Context) {
	if r.known == nil {
		return
	}
	want, own, others := r.wanted(ctx)
	if want == nil {
		return
	}
	q := want.Deregister(r.known.Targets[0])
	if others {
		q = want.DeregisterPortals(r.known.Targets[0], own)
	}
	if err := r.send(ctx, []isns.Request{q}); err != nil {
		r.log.Info("the registration was not taken back", zap.Error(err))
	}
}

// wanted returns what is to be registered, nil before the first exports; which portals of it are this gateway's; and whether
// there are others. Portals of gateways that are down are left out.
func (r *registrar) wanted(ctx context.Context) (want *isns.Registration, own []isns.Portal, others bool) {
	r.mu.Lock()
	m := r.mu.exports
	r.mu.Unlock()
	if m == nil {
		return nil, nil, false
	}
	want = &isns.Registration{Entity: r.cfg.Entity, Period: uint32(3 * r.cfg.Interval / time.Second)}
	for _, g := range m.GetGateways() {
		self := g.GetId() == r.self
		if !self && !g.GetUp() {
			continue
		}
		for _, address := range g.GetPortals() {
			for _, p := range resolve(ctx, address) {
				p.Group = uint16(g.GetTpgt())
				want.Portals = append(want.Portals, p)
				if self {
					own = append(own, p)
				}
				others = others || !self
			}
		}
	}
	for _, t := range m.GetTargets() {
		want.Targets = append(want.Targets, t.GetIqn())
	}
	want.Sort()
	return want, own, others
}

// resolve returns the addresses of HOST:PORT, without those that another host can not connect to.
func resolve(ctx context.Context, address string) []isns.Portal {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return nil
	}
	var addrs []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{ip}
	} else if addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
		return nil
	}
	slices.SortFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(a.String(), b.String()) })
	var out []isns.Portal
	for _, ip := range addrs {
		if ip.IsUnspecified() || ip.Zone() != "" {
			continue
		}
		out = append(out, isns.Portal{Address: ip.As16(), Port: uint16(port)})
	}
	return out
}

// send connects, sends requests and waits for the reply to each. Once the server refuses, the rest is not sent.
func (r *registrar) send(ctx context.Context, requests []isns.Request) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", r.cfg.Server)
	if err != nil {
		return err
	}
	defer nc.Close() //nolint:errcheck // nothing is lost
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for i := range requests {
		r.id++
		reply, err := ask(nc, &requests[i], r.id)
		if err != nil {
			return err
		}
		if reply.Status != isns.StatusSuccessful {
			return &isns.StatusError{Status: reply.Status}
		}
		if s, ok := reply.Uint32(isns.TagRegistrationPeriod); ok {
			r.period = time.Duration(s) * time.Second
		}
	}
	return nil
}

// ask sends one request and reads the reply. No more than ReplyMax bytes of it are kept, whatever the server says.
func ask(nc io.ReadWriter, q *isns.Request, id uint16) (*isns.Reply, error) {
	if _, err := nc.Write(q.Append(nil, id)); err != nil {
		return nil, err
	}
	in := isns.NewReader(q.Function, id)
	for {
		var h [isns.HeaderLen]byte
		if _, err := io.ReadFull(nc, h[:]); err != nil {
			return nil, err
		}
		n, err := in.Header(&h)
		if err != nil {
			return nil, err
		}
		p := make([]byte, n)
		if _, err := io.ReadFull(nc, p); err != nil {
			return nil, err
		}
		reply, err := in.Payload(p)
		if err != nil || reply != nil {
			return reply, err
		}
	}
}
