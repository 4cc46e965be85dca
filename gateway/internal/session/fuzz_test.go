package session

import (
	"bytes"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// FuzzSession feeds the engine what a portal would read from a peer that sends any bytes: a BHS at a time, with an AHS
// and data of zeroes as long as the BHS says. Nothing panics, and all is given back.
func FuzzSession(f *testing.F) {
	sns := pdu.InitiatorSNs{CmdSN: firstSN, ExpStatSN: firstStat}
	write := pdu.SCSICommand{Write: true, ITT: 1, ExpectedDataTransferLength: 8192, CDB: rw10(0x2a, 0, 16), InitiatorSNs: sns}
	out := pdu.DataOut{Final: true, ITT: 1, TTT: pdu.ReservedTag}
	solicited := pdu.DataOut{Final: true, ITT: 1, TTT: 1, BufferOffset: 4096}
	abort := pdu.TMFRequest{Immediate: true, Function: pdu.TMFAbortTask, ITT: 2, ReferencedTaskTag: 1, InitiatorSNs: sns}
	seed := write.AppendHeader(nil, 512)
	f.Add(seed, false)
	seed = out.AppendHeader(seed, 3584)
	f.Add(seed, true)
	f.Add(solicited.AppendHeader(bytes.Clone(seed), 4096), true)
	f.Add(abort.AppendHeader(bytes.Clone(seed), 0), true)
	o := defaults()
	o.disk = &disk{data: make([]byte, diskSize)}
	f.Fuzz(func(t *testing.T, wire []byte, hold bool) {
		p := newPeer(t, o)
		p.hold = hold
		c := p.conns[0]
		for len(wire) >= pdu.BHSLen && !c.closing {
			h := pdu.Header(wire)
			wire = wire[pdu.BHSLen:]
			size, err := pdu.Layout(&h, pdu.Limits{MaxData: 65536})
			if err != nil {
				c.Refuse(&h, err)
				break
			}
			_ = p.send(c, h, make([]byte, size.AHS), make([]byte, size.Data))
			if used, limit := p.pool.Used(); used > limit {
				t.Fatalf("%d bytes of %d", used, limit)
			}
			if len(wire)%2 == 0 {
				p.take(t, c, func(*PDU) {})
			}
		}
		p.over(t)
	})
}
