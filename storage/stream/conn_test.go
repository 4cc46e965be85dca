package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	patience = 10 * time.Second
	testMax  = 16 << 20
)

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	c, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func conn(t testing.TB, nc *net.TCPConn) *Conn {
	t.Helper()
	c, err := newConn(nc, testMax)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lines is a source of payloads.
type lines struct {
	mu      sync.Mutex
	waiting [][]byte
	lend    bool
	frame   *Frame
}

func (l *lines) put(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, p)
}

func (l *lines) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

func (l *lines) Next() *Frame {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return nil
	}
	if l.frame != nil {
		l.frame.Free()
	}
	p := l.waiting[0]
	l.waiting = l.waiting[1:]
	l.frame = NewFrame(len(p))
	if !l.lend {
		l.frame.Buf = append(l.frame.Buf, p...)
		return l.frame
	}
	for i := 0; len(p) > 0; i++ { // in pieces, every other lent
		n := min(len(p), 1+len(p)/3)
		if i%2 == 0 {
			l.frame.Lend(p[:n])
		} else {
			l.frame.Buf = append(l.frame.Buf, p[:n]...)
		}
		p = p[n:]
	}
	return l.frame
}

// running is an end of a stream that runs until the test ends.
type running struct {
	*Conn
	*lines
	stop context.CancelFunc
	done chan error
}

// run runs an end of a stream; take may be nil.
func run(t testing.TB, c *Conn, take func([]byte) error) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{c, &lines{}, cancel, make(chan error, 1)}
	if take == nil {
		take = func([]byte) error { return nil }
	}
	go func() { r.done <- c.Run(ctx, r.lines, take, nil); close(r.done) }()
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

// live has an end of a stream show that it is alive, until the test ends. It reads nothing.
func live(t testing.TB, c *Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	sent := make(chan struct{})
	go func() { defer close(sent); c.send(ctx, &lines{}) }()
	t.Cleanup(func() { cancel(); <-sent })
}

// end waits until the stream has ended.
func (r *running) end(t testing.TB, within time.Duration) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(within):
		t.Fatal("the stream has not ended")
		return nil
	}
}

func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + n)
	}
	return b
}

// TestFrames: what is sent arrives, whatever its length, copied or lent, and however the network cuts it.
func TestFrames(t *testing.T) {
	var sizes []int
	for _, n := range []int{1, 4096, hereMax, readSize, growMin} {
		for d := -2 * headerSize; d <= headerSize; d++ {
			sizes = append(sizes, max(n+d, 0))
		}
	}
	sizes = append(sizes, 3*growMin+5, 0, 1, testMax, 2, 1<<20, 1<<20)
	for _, lend := range []bool{false, true} {
		a, b := pair(t)
		got := make(chan []byte, 1)
		run(t, conn(t, b), func(p []byte) error { got <- bytes.Clone(p); return nil })
		s := run(t, conn(t, a), nil)
		s.lend = lend
		for i, n := range sizes {
			want := payload(n)
			s.put(want)
			if i%2 == 0 {
				s.Flush()
			} else {
				s.Wake()
			}
			select {
			case p := <-got:
				if !bytes.Equal(p, want) {
					t.Fatalf("%d bytes became %d", n, len(p))
				}
			case <-time.After(patience):
				t.Fatalf("%d bytes did not arrive", n)
			}
		}
	}
}

// TestOrder: what many goroutines send arrives once and in the order of each, whoever writes it.
func TestOrder(t *testing.T) {
	const senders, each = 8, 2000
	a, b := pair(t)
	last, seen := [senders]int{}, make(chan struct{})
	total := 0
	run(t, conn(t, b), func(p []byte) error {
		from, n := int(p[0]), int(le.Uint32(p[1:]))
		if n != last[from]+1 {
			t.Errorf("%d of %d after %d", n, from, last[from])
		}
		last[from] = n
		if total++; total == senders*each {
			close(seen)
		}
		return nil
	})
	s := run(t, conn(t, a), nil)
	var wg sync.WaitGroup
	for from := range senders {
		wg.Go(func() {
			for n := range each {
				s.put(append(le.AppendUint32([]byte{byte(from)}, uint32(n+1)), make([]byte, n)...))
				if n%5 == 0 {
					s.Wake()
				} else {
					s.Flush()
				}
			}
		})
	}
	wg.Wait()
	select {
	case <-seen:
	case <-time.After(patience):
		t.Fatalf("%d of %d arrived", total, senders*each)
	}
}

// TestSlowReader: who sends to an end that does not read is never held up; what waited arrives when that reads again.
func TestSlowReader(t *testing.T) {
	a, b := pair(t)
	s, r := run(t, conn(t, a), nil), conn(t, b)
	live(t, r)
	for _, n := range []int{1000, hereMax / 2, hereMax + 1, 1 << 20} {
		for range 64 {
			s.put(payload(n))
			began := time.Now()
			s.Flush()
			if d := time.Since(began); d > time.Second {
				t.Fatalf("held up for %v", d)
			}
		}
	}
	time.Sleep(3 * waitMax) // the sender waits for the socket, again and again
	if s.left() == 0 {
		t.Fatal("the socket took everything")
	}
	for _, n := range []int{1000, hereMax / 2, hereMax + 1, 1 << 20} {
		for range 64 {
			p, err := r.recv()
			if err != nil || !bytes.Equal(p, payload(n)) {
				t.Fatalf("%d bytes became %d: %v", n, len(p), err)
			}
		}
	}
	s.put(payload(5)) // and it goes on as before
	s.Flush()
	if p, err := r.recv(); err != nil || len(p) != 5 {
		t.Fatalf("%d bytes: %v", len(p), err)
	}
}

// TestStopSendsWhatWaits: an end that stops sends what waits, and then that it has ended.
func TestStopSendsWhatWaits(t *testing.T) {
	a, b := pair(t)
	s := run(t, conn(t, a), nil)
	const n = 40
	for range n {
		s.put(payload(1000))
	}
	s.stop()
	r := conn(t, b)
	for i := range n {
		if p, err := r.recv(); err != nil || !bytes.Equal(p, payload(1000)) {
			t.Fatalf("%d: %d bytes, %v", i, len(p), err)
		}
	}
	if _, err := r.recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	if err := s.end(t, patience); !errors.Is(err, context.Canceled) {
		t.Errorf("it says: %v", err)
	}
	s.put(payload(1))
	s.Flush()
	s.Wake()
	if s.left() != 1 {
		t.Error("a stream that has ended takes from its source")
	}
}

// TestSettle: an end that stops takes nothing more, and lets what it took be answered, also when it has no room for what it
// is about to take.
func TestSettle(t *testing.T) {
	for _, full := range []bool{false, true} {
		a, b := pair(t)
		s, c := &lines{}, conn(t, a)
		ctx, cancel := context.WithCancel(context.Background())
		taken, ended := make(chan struct{}), make(chan error, 1)
		take := func([]byte) error {
			close(taken)
			if !full {
				return nil
			}
			<-ctx.Done()
			return fmt.Errorf("no room: %w", ctx.Err())
		}
		go func() { ended <- c.Run(ctx, s, take, func() { s.put([]byte("answer")) }) }()
		answers := 0
		r := run(t, conn(t, b), func(p []byte) error {
			if answers++; string(p) != "answer" {
				t.Errorf("got %q", p)
			}
			return nil
		})
		r.put([]byte("question"))
		r.Flush()
		<-taken
		cancel()
		if err := r.end(t, patience); !errors.Is(err, io.EOF) || answers != 1 {
			t.Errorf("full %v: %d answers, %v", full, answers, err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// TestBrokenWhileTaking: when a stream breaks while take waits, its goroutines rest until that is over.
func TestBrokenWhileTaking(t *testing.T) {
	a, b := pair(t)
	taking, goOn := make(chan struct{}), make(chan struct{})
	s := run(t, conn(t, a), func([]byte) error { close(taking); <-goOn; return nil })
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	if _, err := b.Write(framed(kindBatch, payload(1))); err != nil {
		t.Fatal(err)
	}
	<-taking
	_ = b.SetLinger(0) // what fails here fails below too
	_ = b.Close()
	for end := time.Now().Add(patience); s.ended.Load() == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.put(payload(100))
		s.Flush()
	}
	time.Sleep(tick) // it may be that Run is still about to take note
	for range 1000 {
		if state := s.sender.state.Load(); state != left || len(s.sender.bell) > 0 {
			t.Fatalf("it is at it again: %d", state)
		}
		time.Sleep(10 * time.Microsecond)
	}
	release()
	if err := s.end(t, patience); err == nil {
		t.Error("it has not ended")
	}
}

// TestReason: the other end is told why a stream was ended.
func TestReason(t *testing.T) {
	a, b := pair(t)
	c := conn(t, a)
	c.max = 0 // it takes no batches
	s := run(t, c, nil)
	wrong := fmt.Errorf("that is %w\xff", errors.New("not what I like"))
	r := run(t, conn(t, b), func([]byte) error { return wrong })
	s.put(payload(3))
	s.Flush()
	var end *EndError
	if err := s.end(t, patience); !errors.As(err, &end) || end.Reason != "that is not what I like\uFFFD" {
		t.Errorf("told %v", err)
	}
	if err := r.end(t, patience); !errors.Is(err, wrong) {
		t.Errorf("Run says %v", err)
	}
}

// framed returns a frame as it is sent.
func framed(kind byte, p []byte) []byte {
	f := NewFrame(len(p))
	f.Buf = append(f.Buf, p...)
	return slices.Concat(f.finish(kind, nil)...)
}

// received returns what is received when b is sent and the connection closed.
func received(t testing.TB, limit int, b []byte) (got [][]byte, err error) {
	t.Helper()
	x, y := pair(t)
	go func() { // ends when y reads it all or is closed
		_, _ = x.Write(b)
		_ = x.CloseWrite()
	}()
	c := conn(t, y)
	c.max = limit
	defer c.Close()
	_ = y.SetReadDeadline(time.Now().Add(patience))
	for {
		p, err := c.recv()
		if err != nil {
			return got, err
		}
		got = append(got, bytes.Clone(p))
	}
}

// TestDamage: no bit of a frame can change unnoticed, and a frame that is cut is none.
func TestDamage(t *testing.T) {
	b := framed(kindBatch, []byte("twenty bytes of data"))
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		got, err := received(t, 1<<10, bad)
		if len(got) > 0 || !errors.Is(err, ErrFrame) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("byte %d: %q, %v", i, got, err)
		}
		if got, err = received(t, 1<<10, b[:i]); len(got) > 0 || i > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %q, %v", i, got, err)
		}
	}
	long := framed(kindBatch, payload(readSize+100))
	if got, err := received(t, testMax, long[:len(long)-1]); len(got) > 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a long one: %d, %v", len(got), err)
	}
	long[len(long)-1] ^= 4
	if got, err := received(t, testMax, long); len(got) > 0 || !errors.Is(err, ErrFrame) {
		t.Errorf("a long one: %d, %v", len(got), err)
	}
}

// TestExcept: what a frame leaves out of its checksum may change, and nothing else; the payload is the same.
func TestExcept(t *testing.T) {
	f := NewFrame(0)
	f.Buf = append(f.Buf, "head of data"...)
	f.Except(4)
	f.Buf = append(f.Buf, " and "...)
	f.Lend([]byte("what was lent"))
	f.Except(8)
	f.Except(0)
	f.Lend([]byte(" and more"))
	f.Buf = append(f.Buf, " at the end"...)
	const text = "head of data and what was lent and more at the end"
	b := slices.Concat(f.finish(kindBatch, nil)...)
	if got, err := received(t, len(text), b); len(got) != 1 || string(got[0]) != text || !errors.Is(err, io.EOF) {
		t.Fatalf("got %q, %v", got, err)
	}
	for i := range b {
		at := i - headerSize
		apart := at >= 8 && at < 12 || at >= 22 && at < 30
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		got, err := received(t, len(text), bad)
		if apart && (len(got) != 1 || got[0][at] != bad[i]) {
			t.Errorf("byte %d, left out: %q, %v", at, got, err)
		}
		if !apart && (len(got) > 0 || !errors.Is(err, ErrFrame) && !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("byte %d: %q, %v", at, got, err)
		}
	}
	f.Reset()
	for range apartMax + 2 {
		f.Buf = append(f.Buf, "12"...)
		f.Except(1)
	}
	many := slices.Concat(f.finish(kindBatch, nil)...)
	for at, want := range map[int]bool{2*apartMax - 1: true, 2*apartMax + 1: false} {
		bad := bytes.Clone(many)
		bad[headerSize+at] ^= 1
		if got, _ := received(t, 1<<10, bad); (len(got) == 1) != want {
			t.Errorf("byte %d of more spans than a frame can name: %d frames", at, len(got))
		}
	}
}

// plainly reads a frame's payload as the format says, if it is one.
func plainly(h header, b []byte) ([]byte, bool) {
	n := len(b) - spanSize*int(h[5])
	if n < 0 || h[4] != kindBatch && h[5] > 0 {
		return nil, false
	}
	covered, from := slices.Clone(h[:8]), 0
	for t := b[n:]; len(t) > 0; t = t[spanSize:] {
		at, length := int(le.Uint32(t)), int(le.Uint32(t[4:]))
		if at < from || length == 0 || at+length > n {
			return nil, false
		}
		covered, from = append(covered, b[from:at]...), at+length
	}
	covered = append(covered, b[from:]...)
	return b[:n], crc32.Checksum(covered, castagnoli) == le.Uint32(h[8:])
}

// TestHostileLengths: a length that is told costs no memory until the bytes come.
func TestHostileLengths(t *testing.T) {
	taken := func(limit int, n uint32) (uint64, error) {
		head := make([]byte, headerSize)
		le.PutUint32(head, n)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := received(t, limit, head)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, err
	}
	if n, err := taken(1<<30, 1<<30); n > 2*growMin || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("1 GiB that is allowed took %d bytes: %v", n, err)
	}
	for _, c := range []struct {
		limit int
		n     uint32
	}{{0, 1}, {1 << 20, 1<<20 + 1}, {1 << 20, 1<<32 - 1}} {
		if n, err := taken(c.limit, c.n); n > 2*readSize || !errors.Is(err, ErrFrame) {
			t.Errorf("%d of %d bytes took %d: %v", c.n, c.limit, n, err)
		}
	}
}

// TestSilence: an end of which nothing is heard is given up; one that shows that it is alive is not, even if it takes
// nothing.
func TestSilence(t *testing.T) {
	t.Parallel()
	dead, _ := pair(t)
	alive, other := pair(t)
	began := time.Now()
	d, a := run(t, conn(t, dead), nil), run(t, conn(t, alive), nil)
	live(t, conn(t, other))
	for range 64 {
		d.put(payload(1 << 20)) // more than the sockets take
		a.put(payload(1 << 20))
	}
	d.Flush()
	a.Flush()
	if err := d.end(t, (silentTicks+4)*tick); !errors.Is(err, errSilent) {
		t.Errorf("a dead end: %v", err)
	}
	if d := time.Since(began); d < silentTicks*tick {
		t.Errorf("given up after %v", d)
	}
	select {
	case err := <-a.done:
		t.Errorf("one that is alive: %v", err)
	case <-time.After(4 * tick):
	}
}

// TestWatch: only a read that waits, for ticks on end, is silence.
func TestWatch(t *testing.T) {
	var w watch
	for i := range uint64(3 * silentTicks) {
		for range 2 {
			if !w.tick(2*i + 1) {
				t.Fatal("silent between reads that end")
			}
		}
	}
	for range 3 * silentTicks {
		if !w.tick(1000) {
			t.Fatal("silent while nobody reads")
		}
	}
	n := 0
	for w.tick(1001) {
		if n++; n > 10*silentTicks {
			t.Fatal("never silent")
		}
	}
	if n != silentTicks+1 {
		t.Errorf("silent after %d ticks", n)
	}
}

// FuzzRecv: what comes in is frames, or ends the stream, as a plain reading of the format says.
func FuzzRecv(f *testing.F) {
	f.Add(slices.Concat(framed(kindBatch, []byte("a")), framed(kindAlive, nil), framed(kindBatch, payload(300)), framed(kindEnd, []byte("why"))))
	f.Add(framed(kindBatch, payload(2000)))
	apart := NewFrame(0)
	for range 3 {
		apart.Buf = append(apart.Buf, payload(100)...)
		apart.Except(60)
	}
	f.Add(slices.Concat(apart.finish(kindBatch, nil)...))
	const limit = 1 << 10
	f.Fuzz(func(t *testing.T, b []byte) {
		var want [][]byte
		end := io.EOF
		for rest := b; len(rest) > 0; {
			var h header
			if len(rest) < headerSize {
				end = io.ErrUnexpectedEOF
				break
			}
			h, rest = header(rest), rest[headerSize:]
			n := le.Uint32(h[:])
			most, known := map[byte]uint32{kindBatch: limit, kindAlive: 0, kindEnd: helloMax}[h[4]]
			if !known || h[6]|h[7] != 0 || n > most+spanSize*uint32(h[5]) || h[4] != kindBatch && h[5] > 0 {
				end = ErrFrame
				break
			}
			if int(n) > len(rest) {
				end = io.ErrUnexpectedEOF
				break
			}
			p, ok := plainly(h, rest[:n])
			if !ok {
				end = ErrFrame
				break
			}
			if h[4] == kindEnd {
				end = nil
				break
			}
			if h[4] == kindBatch {
				want = append(want, p)
			}
			rest = rest[n:]
		}
		got, err := received(t, limit, b)
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("got %x, want %x", got, want)
		}
		if end == nil && !errors.As(err, new(*EndError)) || end != nil && !errors.Is(err, end) {
			t.Errorf("ended by %v, want %v", err, end)
		}
	})
}

// TestFramesAreKept: a frame has the room that was asked for, whatever was given back before.
func TestFramesAreKept(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		n := rnd.IntN(1 << (1 + rnd.IntN(23)))
		f := NewFrame(n)
		if f.Len() != 0 || f.Room() < n {
			t.Fatalf("asked for %d, got %d, of which %d are used", n, f.Room(), f.Len())
		}
		f.Buf = append(f.Buf, make([]byte, n)...)
		if rnd.IntN(4) == 0 {
			f.Buf = append(f.Buf, make([]byte, rnd.IntN(9000))...) // grown by the way
		}
		f.Free()
	}
}
