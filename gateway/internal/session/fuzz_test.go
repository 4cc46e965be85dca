package session

import (
	"bytes"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// FuzzSession feeds the engine what a portal would read from a peer that sends any bytes on two connections: a BHS at a
// time, with an AHS of zeroes and data as long as the BHS says. The data are the BHS's last 16 bytes, repeated: reserved
// bytes in what has text, a CDB in commands. Nothing panics, and all is given back.
func FuzzSession(f *testing.F) {
	sns := pdu.InitiatorSNs{CmdSN: firstSN, ExpStatSN: firstStat}
	write := pdu.SCSICommand{Write: true, ITT: 1, ExpectedDataTransferLength: 8192, CDB: rw10(0x2a, 0, 16), InitiatorSNs: sns}
	out := pdu.DataOut{Final: true, ITT: 1, TTT: pdu.ReservedTag}
	solicited := pdu.DataOut{Final: true, ITT: 1, TTT: 1, BufferOffset: 4096}
	abort := pdu.TMFRequest{Immediate: true, Function: pdu.TMFAbortTask, ITT: 2, ReferencedTaskTag: 1, InitiatorSNs: sns}
	var seeds [][]byte
	seed := write.AppendHeader(nil, 512)
	f.Add(seed, false)
	seed = out.AppendHeader(seed, 3584)
	f.Add(seed, true)
	f.Add(solicited.AppendHeader(bytes.Clone(seed), 4096), true)
	f.Add(abort.AppendHeader(bytes.Clone(seed), 0), true)
	for f := pdu.TMFAbortTaskSet; f <= pdu.TMFQueryAsyncEvent; f++ {
		tmf := pdu.TMFRequest{Immediate: true, Function: f, ITT: 2, ReferencedTaskTag: 1, InitiatorSNs: sns}
		tmf.CmdSN = tmf.CmdSN.Next()
		many := tmf.AppendHeader(bytes.Clone(seed), 0)
		seeds = append(seeds, tmf.AppendHeader(out.AppendHeader(many, 512), 0))
	}
	logout := pdu.LogoutRequest{Reason: pdu.LogoutCloseConnection, CID: 1, ITT: 3, InitiatorSNs: sns}
	snack := pdu.SNACK{Type: pdu.SNACKStatus, ITT: pdu.ReservedTag, TTT: pdu.ReservedTag, RunLength: 1}
	seeds = append(seeds, logout.AppendHeader(snack.AppendHeader(nil, 0), 0))
	for _, text := range []string{"SendTargets=All\x00", "SendTargets=\x00\x00\x00\x00", "a=b\x00InitialR2T="} {
		q := pdu.TextRequest{Final: true, ITT: 4, TTT: pdu.ReservedTag, InitiatorSNs: sns}
		s := q.AppendHeader(nil, 16)
		copy(s[32:], text)
		seeds = append(seeds, s)
	}
	for _, s := range seeds {
		f.Add(s, true)
		f.Add(s, false)
	}
	o := defaults()
	o.params.ISCSIProtocolLevel, o.params.TaskReporting = levelRFC7144, login.TaskReportingFastAbort
	o.disk = &disk{data: make([]byte, diskSize)}
	f.Fuzz(func(t *testing.T, wire []byte, hold bool) {
		p := newPeer(t, o)
		p.hold = hold
		p.join(t, o, 1)
		for len(wire) >= pdu.BHSLen && !p.s.ended {
			h := pdu.Header(wire)
			c := p.conns[h[2]&1] // a byte that is reserved in most PDUs
			if c.closing {
				break
			}
			wire = wire[pdu.BHSLen:]
			size, err := pdu.Layout(&h, pdu.Limits{MaxData: 65536})
			if err != nil {
				c.Refuse(&h, err)
				break
			}
			_ = p.send(c, h, make([]byte, size.AHS), bytes.Repeat(h[32:], size.Data/16+1)[:size.Data])
			if used, limit := p.pool.Used(); used > limit {
				t.Fatalf("%d bytes of %d", used, limit)
			}
			if len(wire)%2 == 0 {
				for _, c := range p.conns {
					p.take(t, c, func(*PDU) {})
				}
			}
		}
		p.over(t)
	})
}
