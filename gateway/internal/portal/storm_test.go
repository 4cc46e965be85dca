package portal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// TestStorm has several initiators write, read back, abort and drop connections at the same time, with little memory, and
// checks what they read. Run it with -race.
func TestStorm(t *testing.T) {
	p, r, _ := testServer(t, func(c *Config) {
		c.MemoryMax, c.SessionMemoryMax = 80<<20, 16<<20
		c.PingInterval = 0 // these initiators answer no ping, and may wait long for their turn on a busy machine
	})
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for life := range 4 {
				i := dial(t, p)
				if err := i.login(fmt.Sprint(testInitiator, n), 1); err != nil {
					t.Error(err)
					return
				}
				i.ready()
				i.storm(rnd, uint32(n)*32768, life)
				if life%2 == 0 {
					_ = i.nc.Close()
				} else {
					i.logout()
				}
			}
		})
	}
	all.Wait()
	eventually(t, "sessions end", func() bool { return len(r.Sessions()) == 0 && p.Stats().MemoryUsed == 0 })
	if s := p.Stats(); s.Panics != 0 || s.ProtocolErrors != 0 {
		t.Errorf("%+v", s)
	}
}

// storm writes eight regions of the 16 MiB from lba on, at once, and reads them back; in between it aborts one write.
func (i *initiator) storm(rnd *rand.Rand, lba uint32, life int) {
	for round := range 6 {
		want := map[pdu.ITT][]byte{}
		var regions [8][]byte
		for k := range regions {
			size := []int{512, 4096, 65536, 1 << 20}[rnd.IntN(4)]
			regions[k] = bytes.Repeat([]byte{byte(life*50 + round*8 + k + 1)}, size)
			itt := i.rw(0x2a, lba+uint32(k)*4096, size, regions[k][:min(size, rnd.IntN(3)*32768)])
			want[itt] = regions[k]
		}
		for len(want) > 0 {
			a, err := i.read()
			switch {
			case err != nil:
				i.t.Error(err)
				return
			case a.Opcode() == pdu.OpR2T:
				i.answerR2T(a, want[a.ITT()])
			case a.Opcode() == pdu.OpSCSIResponse && a.Header[3] == 0:
				delete(want, a.ITT())
			default:
				i.t.Errorf("%v %x", a.Opcode(), a.data)
				return
			}
		}
		for k, w := range regions {
			i.rw(0x28, lba+uint32(k)*4096, len(w), nil)
		}
		got := map[pdu.ITT][]byte{}
		for done := 0; done < len(regions); {
			a, err := i.read()
			if err != nil || a.Opcode() != pdu.OpDataIn {
				i.t.Errorf("%v %v", a.Opcode(), err)
				return
			}
			got[a.ITT()] = append(got[a.ITT()], a.data...)
			if a.Header[1]&1 != 0 {
				done++
			}
		}
		for k, w := range regions {
			if !bytes.Equal(got[i.itt-pdu.ITT(len(regions)-1-k)], w) {
				i.t.Errorf("region %d of round %d differs", k, round)
			}
		}
		sn := i.cmdSN
		itt := i.rw(0x2a, lba+32767-8, 4096, nil) // waits for its R2T, which is not answered
		h := pdu.TMFRequest{
			Immediate: true, Function: pdu.TMFAbortTask, ITT: 1 << 20, ReferencedTaskTag: itt, RefCmdSN: sn,
			InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat},
		}
		i.write(h.AppendHeader(nil, 0), nil)
		for {
			a, err := i.read()
			if err != nil {
				i.t.Error(err)
				return
			}
			if a.Opcode() == pdu.OpTMFResponse {
				break
			}
		}
	}
}

// TestDigestErrors breaks a data digest, which is rejected, and a header digest, which is not answered at all.
func TestDigestErrors(t *testing.T) {
	for _, header := range []bool{false, true} {
		p, _, _ := testServer(t, nil)
		i := dial(t, p)
		if err := i.login(testInitiator, 1, "HeaderDigest=CRC32C", "DataDigest=CRC32C"); err != nil {
			t.Fatal(err)
		}
		i.digest = true
		i.ready()
		h := pdu.NOPOut{ITT: 7, TTT: pdu.ReservedTag, InitiatorSNs: i.sns()}
		b := h.AppendHeader(nil, 4)
		b = append(pdu.AppendHeaderDigest(b, b), 1, 2, 3, 4)
		b = pdu.AppendTrailer(b, true, []byte{1, 2, 3, 4})
		if header {
			b[pdu.BHSLen] ^= 1
		} else {
			b[len(b)-1] ^= 1
		}
		_, _ = i.nc.Write(b)
		a, err := i.read()
		switch {
		case header && err == nil:
			t.Errorf("a bad header digest is answered with %v", a.Opcode())
		case !header && (err != nil || a.Opcode() != pdu.OpReject || a.Header[2] != byte(pdu.RejectDataDigestError)):
			t.Errorf("a bad data digest is answered with %v, %v", a.Opcode(), err)
		}
		i.closed()
	}
}
