package selftest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// yesMan is a target that answers each command with GOOD, and notes the CDB's first byte by connection. It lets in as
// many connections as logins says, and refuses the next one slowly.
type yesMan struct {
	l      net.Listener
	logins int
	wg     sync.WaitGroup
	mu     sync.Mutex
	cdbs   [][]byte
}

func newYesMan(t *testing.T, logins int) *yesMan {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	y := &yesMan{l: l, logins: logins}
	y.wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			y.mu.Lock()
			y.cdbs = append(y.cdbs, nil)
			y.mu.Unlock()
			y.wg.Go(func() { y.serve(n, c) })
		}
	})
	return y
}

// end waits for all connections to be closed and returns what came over each.
func (y *yesMan) end() [][]byte {
	y.l.Close()
	y.wg.Wait()
	return y.cdbs
}

func (y *yesMan) serve(n int, c net.Conn) {
	defer c.Close()
	for statSN := uint32(1); ; statSN++ {
		var q, a wire.PDU
		if _, err := io.ReadFull(c, q.BHS[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(q.BHS[4])*4+int64(q.DataLen()+3)&^3); err != nil {
			return
		}
		a.Put32(16, q.ITT())
		switch q.Opcode() {
		case wire.OpLogin:
			a.BHS[0], a.BHS[1] = wire.OpLoginRsp, q.Flags()
			copy(a.BHS[8:16], q.BHS[8:16])
			a.BHS[15] = 1
			if n >= y.logins {
				time.Sleep(100 * time.Millisecond)
				a.BHS[36], a.BHS[37] = 3, 2 // out of resources
			}
		case wire.OpCommand:
			a.BHS[0], a.BHS[1] = wire.OpResponse, wire.Final
			y.mu.Lock()
			y.cdbs[n] = append(y.cdbs[n], q.BHS[32])
			y.mu.Unlock()
		default: // data of a write
			continue
		}
		a.Put32(24, statSN)
		a.Put32(28, q.U32(24)+1)
		a.Put32(32, q.U32(24)+100)
		if _, err := c.Write(a.BHS[:]); err != nil {
			return
		}
	}
}

// TestHeartbeatWithoutSecondPath: nothing is written over the first path when there is no second one.
func TestHeartbeatWithoutSecondPath(t *testing.T) {
	y := newYesMan(t, 2)
	p := &probe{
		ctx: context.Background(), blocks: 1 << 20, blockLen: 512,
		o: Options{
			URL: URL{Portal: y.l.Addr().String(), Target: "iqn.2026-11.dev:x"}, Initiator: "iqn.2026-11.dev:i",
			Writes: Range{Count: 1 << 20}, Timeout: 5 * time.Second,
		},
	}
	var err error
	if p.h, err = p.dial(p.o.Initiator, nil); err != nil {
		t.Fatal(err)
	}
	_, err = atsHeartbeat(p)
	if refused := (*wire.LoginError)(nil); !errors.As(err, &refused) {
		t.Errorf("ended with %v", err)
	}
	p.endCheck()
	p.h.Close()
	if got := y.end(); len(got) != 3 || string(got[0]) != "\x00\x8a" || string(got[1]) != "\x00" {
		t.Errorf("commands by connection: %.64x", got)
	}
}
