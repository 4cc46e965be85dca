package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// serving is a server that runs until the test ends. Its streams echo.
type serving struct {
	*Server
	address string
	stop    func()
}

var testCluster = [16]byte{4, 2}

func echo(ctx context.Context, c *Conn) {
	l := &lines{}
	_ = c.Run(ctx, l, func(b []byte) error {
		l.put(bytes.Clone(b))
		c.Flush()
		return nil
	}, nil)
}

func serve(t *testing.T, strangers int) *serving {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(lis, Config{Cluster: testCluster, Self: 3, Services: map[Purpose]Service{
		Chunk:       {Max: 1 << 20, Serve: echo},
		RaftControl: {Max: 1 << 10, Serve: echo, Check: func(h *Hello) error { return errors.New("not now") }},
	}})
	s.strangers = make(chan struct{}, strangers)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	v := &serving{s, lis.Addr().String(), sync.OnceFunc(func() { cancel(); wg.Wait() })}
	t.Cleanup(v.stop)
	return v
}

func dialed(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

var good = Hello{Purpose: Chunk, Cluster: testCluster, To: 3}

func TestEcho(t *testing.T) {
	s := serve(t, 10)
	c, err := Dial(t.Context(), s.address, good, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte, 1)
	r := run(t, c, func(b []byte) error { got <- bytes.Clone(b); return nil })
	for n := range 2000 {
		r.put(payload(n))
		r.Flush()
		select {
		case b := <-got:
			if !bytes.Equal(b, payload(n)) {
				t.Fatalf("%d bytes became %d", n, len(b))
			}
		case <-time.After(patience):
			t.Fatalf("no answer to %d", n)
		}
	}
	s.stop()
	if err := r.end(t, patience); !errors.Is(err, io.EOF) {
		t.Errorf("the server stopped: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	s := serve(t, 10)
	for name, c := range map[string]struct {
		change func(*Hello)
		want   Code
	}{
		"cluster":   {func(h *Hello) { h.Cluster[15]++ }, BadCluster},
		"to":        {func(h *Hello) { h.To = 4 }, BadChunkserver},
		"purpose":   {func(h *Hello) { h.Purpose = RaftData }, BadPurpose},
		"the check": {func(h *Hello) { h.Purpose = RaftControl }, NotReady},
		"anybody":   {func(h *Hello) { h.To = 0 }, Accepted},
	} {
		h := good
		c.change(&h)
		conn, err := Dial(t.Context(), s.address, h, 0)
		if err == nil {
			conn.Close()
		}
		var refused *RefusedError
		if c.want == Accepted && err != nil || c.want != Accepted && (!errors.As(err, &refused) || refused.Code != c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNewerPeer: one that knows more versions than the server joins, one that needs what is not known is told.
func TestNewerPeer(t *testing.T) {
	s := serve(t, 10)
	for name, c := range map[string]struct {
		h    Hello
		more string
		want Code
	}{
		"more versions": {Hello{lowest: VersionMax, highest: VersionMax + 7}, "and more fields", Accepted},
		"other ones":    {Hello{lowest: VersionMax + 1, highest: VersionMax + 7}, "", BadVersion},
		"a flag":        {Hello{lowest: VersionMax, highest: VersionMax, flags: 1 << 31}, "", BadFlags},
	} {
		c.h.Purpose, c.h.Cluster = Chunk, testCluster
		nc := dialed(t, s.address)
		if _, err := nc.Write(resealed(c.h.append(nil), func(b []byte) []byte { return append(b, c.more...) })); err != nil {
			t.Fatal(err)
		}
		b, err := readSealed(nc, nil)
		if err != nil {
			t.Fatal(name, err)
		}
		var a answer
		if err := a.parse(b); err != nil || a.code != c.want || c.want == Accepted && a.version != VersionMax {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// TestMixedFirstBytes: who begins otherwise is another listener's, with all that it sent, and holds up nobody.
func TestMixedFirstBytes(t *testing.T) {
	s := serve(t, 10)
	for _, first := range []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "ashlar/t and more", "a\x00", "x"} {
		nc := dialed(t, s.address)
		for _, b := range []byte(first) { // one by one
			if _, err := nc.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		other, err := s.Others().Accept()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(first))
		if _, err := io.ReadFull(other, got); err != nil || string(got) != first {
			t.Errorf("%q became %q: %v", first, got, err)
		}
		if _, err := other.Write([]byte("back")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(nc, got[:1]); err != nil || got[0] != 'b' {
			t.Errorf("back came %q: %v", got[:1], err)
		}
		_ = other.Close()
	}
	for _, bad := range []string{magic + "\x10\x00", magic + "\xff\xff"} { // lengths that no hello has
		nc := dialed(t, s.address)
		if _, err := io.WriteString(nc, bad); err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestStrangers: connections that say nothing are few, end with the server, and hold up nobody who says something.
func TestStrangers(t *testing.T) {
	s := serve(t, 2)
	for range 2 {
		nc := dialed(t, s.address)
		if _, err := io.WriteString(nc, magic[:3]); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(patience); len(s.strangers) < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if _, err := dialed(t, s.address).Read(make([]byte, 1)); err == nil {
		t.Error("one too many is waited for")
	}
	began := time.Now()
	s.stop()
	if d := time.Since(began); d > helloWait/2 {
		t.Errorf("the server stopped after %v", d)
	}
}

// TestStalledNeighbour: a client that sends and never reads holds up its own stream only.
func TestStalledNeighbour(t *testing.T) {
	s := serve(t, 10)
	stalled, err := Dial(t.Context(), s.address, good, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan struct{})
	l := &lines{}
	for range 64 {
		l.put(payload(1 << 20)) // echoed, and not read
	}
	go func() { defer close(sent); stalled.send(ctx, l) }()
	defer func() { cancel(); <-sent }()
	time.Sleep(100 * time.Millisecond)
	c, err := Dial(t.Context(), s.address, good, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{}, 1)
	r := run(t, c, func([]byte) error { got <- struct{}{}; return nil })
	for range 100 {
		r.put(payload(100))
		r.Flush()
		select {
		case <-got:
		case <-time.After(time.Second):
			t.Fatal("held up")
		}
	}
	began := time.Now()
	s.stop() // what can not be sent does not hold up the end
	if d := time.Since(began); d > flushMax+2*time.Second {
		t.Errorf("the server stopped after %v", d)
	}
}

// TestDialGivesUp: a server that does not answer, and one that answers something else.
func TestDialGivesUp(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			nc, err := lis.Accept()
			if err != nil {
				return
			}
			defer nc.Close() //nolint:errcheck // nothing is lost with it
			if i == 1 {
				_, _ = io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\n\r\n")
			}
		}
	}()
	defer func() { _ = lis.Close(); <-ended }()
	began := time.Now()
	if _, err := Dial(t.Context(), lis.Addr().String(), good, 0); err == nil || time.Since(began) > answerMax+time.Second {
		t.Errorf("silence: %v after %v", err, time.Since(began))
	}
	if _, err := Dial(t.Context(), lis.Addr().String(), good, 0); !errors.Is(err, errHello) {
		t.Errorf("something else: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	began = time.Now()
	if _, err := Dial(ctx, lis.Addr().String(), good, 0); err == nil || time.Since(began) > answerMax/2 {
		t.Errorf("cancelled: %v after %v", err, time.Since(began))
	}
}
