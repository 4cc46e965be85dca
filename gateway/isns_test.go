package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// isnsServer answers iSNS requests as a test wants it.
type isnsServer struct {
	addr string
	mu   sync.Mutex
	seen []string // function, and whether with the replace flag
	last []byte   // the last payload
	// answer makes the reply to a request of n, counted from 0; nil: status 0.
	answer func(n int, request []byte) []byte
}

func newISNSServer(t *testing.T, answer func(n int, request []byte) []byte) *isnsServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &isnsServer{addr: l.Addr().String(), answer: answer}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.serve(nc) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return s
}

func (s *isnsServer) serve(nc net.Conn) {
	defer nc.Close() //nolint:errcheck // a test's server
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	for {
		h := make([]byte, 12)
		if _, err := io.ReadFull(nc, h); err != nil {
			return
		}
		p := make([]byte, binary.BigEndian.Uint16(h[4:]))
		if _, err := io.ReadFull(nc, p); err != nil {
			return
		}
		s.mu.Lock()
		n := len(s.seen)
		s.seen = append(s.seen, fmt.Sprintf("%d %v", binary.BigEndian.Uint16(h[2:]), h[6]&0x10 != 0))
		s.last = p
		s.mu.Unlock()
		out := isnsReply(h, 0)
		if s.answer != nil {
			out = s.answer(n, h)
		}
		if out == nil {
			return
		}
		if _, err := nc.Write(out); err != nil {
			return
		}
	}
}

// isnsReply is a reply with a status and attributes.
func isnsReply(request []byte, status uint32, attributes ...byte) []byte {
	b := []byte{0, 1, request[2] | 0x80, request[3]}
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(attributes)))
	b = append(b, 0x4c, 0, request[8], request[9], 0, 0)
	return append(binary.BigEndian.AppendUint32(b, status), attributes...)
}

func (s *isnsServer) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
}

// waitFor waits until the server has seen n requests.
func (s *isnsServer) waitFor(t *testing.T, n int) []string {
	t.Helper()
	for range 1000 {
		if got := s.got(); len(got) >= n {
			return got
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the server saw %q, want %d requests", s.got(), n)
	return nil
}

func isnsExports(targets ...string) *metav1.Exports {
	m := &metav1.Exports{Gateways: []*metav1.Gateway{
		{Id: 1, Portals: []string{"127.0.0.1:3260", "[fd00::1]:3260"}, Tpgt: 1},
		{Id: 2, Portals: []string{"127.0.0.2:3260"}, Tpgt: 2, Up: true},
		{Id: 3, Portals: []string{"127.0.0.3:3260"}, Tpgt: 3},
	}}
	for _, t := range targets {
		m.Targets = append(m.Targets, &metav1.Target{Iqn: t})
	}
	return m
}

// startRegistrar runs a registrar until stop is called.
func startRegistrar(t *testing.T, server string, change func(*registrar)) (r *registrar, stop func()) {
	t.Helper()
	cfg := ISNSConfig{Server: server, Interval: time.Minute}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	r = newRegistrar(cfg, 1, []byte{0xab, 0xcd}, zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)))
	if change != nil {
		change(r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return r, stop
}

func TestRegistration(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	s := newISNSServer(t, nil)
	r, stop := startRegistrar(t, s.addr, nil)
	r.set(isnsExports("iqn.2026-11.com.example:a"))
	s.waitFor(t, 1)
	s.mu.Lock()
	for _, want := range []string{"ashlar-abcd\x00", "iqn.2026-11.com.example:a\x00", "\xff\xff\x7f\x00\x00\x01", "\xff\xff\x7f\x00\x00\x02", "\xfd\x00"} {
		if !bytes.Contains(s.last, []byte(want)) {
			t.Errorf("%q is not registered", want)
		}
	}
	if bytes.Contains(s.last, []byte("\xff\xff\x7f\x00\x00\x03")) {
		t.Error("a portal of a gateway that is down is registered")
	}
	s.mu.Unlock()
	r.set(isnsExports("iqn.2026-11.com.example:a")) // nothing changed
	s.waitFor(t, 2)
	r.set(isnsExports("iqn.2026-11.com.example:b"))
	s.waitFor(t, 3)
	r.set(isnsExports()) // nothing is exported
	s.waitFor(t, 4)
	r.set(isnsExports("iqn.2026-11.com.example:b"))
	s.waitFor(t, 5)
	stop()
	if got, want := strings.Join(s.got(), ", "), "1 true, 1 false, 1 true, 4 false, 1 true, 4 false"; got != want {
		t.Errorf("the server saw %s, want %s", got, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes.Contains(s.last, []byte("ashlar-abcd")) || !bytes.Contains(s.last, []byte("\xff\xff\x7f\x00\x00\x01")) || bytes.Contains(s.last, []byte("\xff\xff\x7f\x00\x00\x02")) {
		t.Errorf("with another gateway up, %q was taken out", s.last)
	}
}

// TestRegistrationAnew has a server that lost what it had.
func TestRegistrationAnew(t *testing.T) {
	s := newISNSServer(t, func(n int, h []byte) []byte {
		if n == 1 {
			return isnsReply(h, 6)
		}
		return isnsReply(h, 0)
	})
	r, stop := startRegistrar(t, s.addr, nil)
	r.set(isnsExports("iqn.2026-11.com.example:a"))
	s.waitFor(t, 1)
	r.set(isnsExports("iqn.2026-11.com.example:b"))
	s.waitFor(t, 4)
	stop()
	if got, want := strings.Join(s.got(), ", "), "1 true, 1 true, 1 false, 1 true, 4 false"; got != want {
		t.Errorf("the server saw %s, want %s", got, want)
	}
}

// TestRegistrationPeriod has a server that wants to hear of the cluster every three seconds.
func TestRegistrationPeriod(t *testing.T) {
	s := newISNSServer(t, func(_ int, h []byte) []byte {
		return isnsReply(h, 0, 0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 0, 3)
	})
	r, _ := startRegistrar(t, s.addr, nil)
	r.set(isnsExports("iqn.2026-11.com.example:a"))
	since := time.Now()
	s.waitFor(t, 3)
	if d := time.Since(since); d < 1500*time.Millisecond {
		t.Errorf("three registrations within %v", d)
	}
}

// TestHostileISNSServer is the published defect of iSNS clients (CVE-2010-2221) and what is like it: replies that lie about
// their length or never end. The registration fails, and the gateway goes on.
func TestHostileISNSServer(t *testing.T) {
	huge := func(h []byte) []byte { // PDU after PDU, none of which is the last
		var out []byte
		for seq := range uint16(40) {
			b := []byte{0, 1, h[2] | 0x80, h[3], 0xff, 0xfc, 0x40, 0, h[8], h[9], 0, 0}
			binary.BigEndian.PutUint16(b[10:], seq)
			if seq == 0 {
				b[6] |= 0x04
			}
			out = append(append(out, b...), make([]byte, 0xfffc)...)
		}
		return out
	}
	for name, answer := range map[string]func(h []byte) []byte{
		"closes":                      func([]byte) []byte { return nil },
		"half a header":               func(h []byte) []byte { return isnsReply(h, 0)[:7] },
		"less than declared":          func(h []byte) []byte { return isnsReply(h, 0, make([]byte, 400)...)[:100] },
		"no status":                   func(h []byte) []byte { b := isnsReply(h, 0)[:12]; b[5] = 0; return b },
		"an attribute beyond the end": func(h []byte) []byte { return isnsReply(h, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfc) },
		"an attribute of odd length":  func(h []byte) []byte { return isnsReply(h, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4) },
		"half an attribute":           func(h []byte) []byte { return isnsReply(h, 0, 0, 0, 0, 1) },
		"another function":            func(h []byte) []byte { b := isnsReply(h, 0); b[3] = 9; return b },
		"another transaction":         func(h []byte) []byte { b := isnsReply(h, 0); b[9]++; return b },
		"refused for ever":            func(h []byte) []byte { return isnsReply(h, 99) },
		"a reply without end":         huge,
		"text":                        func([]byte) []byte { return []byte(strings.Repeat("HTTP/1.1 400 Bad Request\r\n", 4)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newISNSServer(t, func(n int, h []byte) []byte {
				if out := answer(h); out != nil && n < 3 {
					return out
				}
				return nil
			})
			r := newRegistrar(ISNSConfig{Server: s.addr, Interval: time.Minute}, 1, nil, zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)))
			r.set(isnsExports("iqn.2026-11.com.example:a"))
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := r.sync(ctx); err == nil || r.known != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestISNSServer registers with Debian's isnsd, if it is there, and asks it what it knows.
func TestISNSServer(t *testing.T) {
	daemon, err := exec.LookPath("isnsd")
	if err != nil {
		t.Skip("there is no isnsd (package open-isns-server)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	dir := t.TempDir()
	conf := filepath.Join(dir, "isnsd.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "SourceName = iqn.2026-11.com.example:server\nSecurity = 0\nBindAddress = %s\n"+
		"Database = %s\nPIDFile = %s\nControlSocket = %s\nDefaultDiscoveryDomain = 1\n", addr, dir+"/db", dir+"/pid", dir+"/ctl"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(daemon, "-f", "-c", conf)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	up := false
	for range 200 {
		if nc, err := net.Dial("tcp", addr); err == nil {
			_ = nc.Close()
			up = true
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !up {
		t.Skip("isnsd does not start here: " + log.String())
	}
	sync := func(r *registrar, m *metav1.Exports) {
		t.Helper()
		r.set(m)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	cfg := ISNSConfig{Server: addr, Interval: time.Minute}
	one := newRegistrar(cfg, 1, []byte{1}, zaptest.NewLogger(t))
	sync(one, isnsExports("iqn.2026-11.com.example:a", "iqn.2026-11.com.example:b"))
	sync(one, isnsExports("iqn.2026-11.com.example:a", "iqn.2026-11.com.example:b"))
	two := newRegistrar(cfg, 2, []byte{1}, zaptest.NewLogger(t))
	sync(two, isnsExports("iqn.2026-11.com.example:b", "iqn.2026-11.com.example:c"))
	if got := isnsNodes(t, addr, "iqn.2026-11.com.example:b"); got != "iqn.2026-11.com.example:b iqn.2026-11.com.example:c" {
		t.Errorf("registered are %q", got)
	}
	sync(one, isnsExports("iqn.2026-11.com.example:c")) // its source, target a, is gone
	if got := isnsNodes(t, addr, "iqn.2026-11.com.example:c"); got != "iqn.2026-11.com.example:c" {
		t.Errorf("registered are %q", got)
	}
	three := newRegistrar(cfg, 2, []byte{1}, zaptest.NewLogger(t)) // as after a restart, when all targets are others
	sync(three, isnsExports("iqn.2026-11.com.example:d"))
	if got := isnsNodes(t, addr, "iqn.2026-11.com.example:d"); got != "iqn.2026-11.com.example:d" {
		t.Errorf("registered are %q", got)
	}
	m := isnsExports("iqn.2026-11.com.example:d")
	m.Gateways = m.GetGateways()[1:2] // the only one that is up
	three.set(m)
	three.leave(t.Context())
	if got := isnsNodes(t, addr, "iqn.2026-11.com.example:d"); got != "" {
		t.Errorf("after leaving registered are %q", got)
	}
}

// isnsNodes asks a server for the names of the nodes that source sees.
func isnsNodes(t *testing.T, addr, source string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close() //nolint:errcheck // only read
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	text := append([]byte(source), make([]byte, 4-len(source)%4)...)
	p := append([]byte{0, 0, 0, 32, 0, 0, 0, byte(len(text))}, text...)
	p = append(p, 0, 0, 0, 33, 0, 0, 0, 4, 0, 0, 0, 1) // the key: targets
	p = append(p, make([]byte, 8)...)
	p = append(p, 0, 0, 0, 32, 0, 0, 0, 0)
	h := []byte{0, 1, 0, 2, byte(len(p) >> 8), byte(len(p)), 0x8c, 0, 0, 1, 0, 0}
	if _, err := nc.Write(append(h, p...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, h); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, binary.BigEndian.Uint16(h[4:]))
	if _, err := io.ReadFull(nc, reply); err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint32(reply) != 0 {
		return ""
	}
	var names []string
	operating := false
	for b := reply[4:]; len(b) >= 8; {
		tag, n := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		if operating && tag == 32 {
			names = append(names, string(bytes.TrimRight(b[8:8+n], "\x00")))
		}
		operating = operating || tag == 0
		b = b[8+n:]
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
