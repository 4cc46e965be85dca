package streamtest

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Noise is a way to a server that changes one bit of what goes there and one of what comes back: in the middle of the first
// place that looks like Mark.
type Noise struct {
	Mark []byte
	// There and Back tell whether it did.
	There, Back atomic.Bool
}

// Listen returns the address that leads to the server's, until the test ends.
func (n *Noise) Listen(tb testing.TB, server string) string {
	tb.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	tb.Cleanup(func() { cancel(); _ = lis.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			a, err := lis.Accept()
			if err != nil {
				return
			}
			b, err := (&net.Dialer{}).DialContext(ctx, "tcp", server)
			if err != nil {
				_ = a.Close()
				continue
			}
			context.AfterFunc(ctx, func() { _ = a.Close(); _ = b.Close() })
			wg.Go(func() { n.carry(b, a, &n.There) })
			wg.Go(func() { n.carry(a, b, &n.Back) })
		}
	})
	return lis.Addr().String()
}

// carry ends when either end does.
func (n *Noise) carry(to, from net.Conn, done *atomic.Bool) {
	defer func() { _ = to.Close() }()
	b := make([]byte, 64<<10)
	for {
		k, err := from.Read(b)
		if at := bytes.Index(b[:k], n.Mark); at >= 0 && done.CompareAndSwap(false, true) {
			b[at+len(n.Mark)/2] ^= 4
		}
		if _, werr := to.Write(b[:k]); err != nil || werr != nil {
			return
		}
	}
}
