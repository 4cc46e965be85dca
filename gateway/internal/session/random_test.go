package session

import (
	"bytes"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"pgregory.net/rapid"
)

// initiator keeps the numbers of a well-behaved initiator, so that random sequences get deep.
type initiator struct {
	cmdSN  pdu.CmdSN
	itt    pdu.ITT
	r2ts   []pdu.R2T
	maxSN  pdu.CmdSN
	status map[pdu.ITT]int // answers by tag
	stat   map[*Conn]pdu.StatSN
}

// see takes what the target sent and checks the rules that always hold.
func (i *initiator) see(t *rapid.T, c *Conn, u *PDU) {
	h := &u.Header
	exp, top := pdu.CmdSN(be32(h, 28)), pdu.CmdSN(be32(h, 32))
	if top.Less(i.maxSN) {
		t.Fatalf("MaxCmdSN goes back from %d to %d", i.maxSN, top)
	}
	stat := i.stat[c]
	if top.Sub(exp)+1 > WindowMax || top.Sub(exp) < -1 {
		t.Fatalf("window %d..%d", exp, top)
	}
	i.maxSN = top
	sn := pdu.StatSN(be32(h, 24))
	switch op := h.Opcode(); {
	case op == pdu.OpDataIn && h[1]&1 == 0:
	case op == pdu.OpR2T || op == pdu.OpNOPIn && h.ITT().IsReserved():
		if sn != stat {
			t.Fatalf("%v shows StatSN %d, next is %d", op, sn, stat)
		}
	default:
		if sn != stat {
			t.Fatalf("%v has StatSN %d, expected %d", op, sn, stat)
		}
		i.stat[c] = stat.Next()
	}
	switch h.Opcode() {
	case pdu.OpR2T:
		r, err := pdu.ParseR2T(h, nil, nil)
		check(err)
		i.r2ts = append(i.r2ts, r)
	case pdu.OpSCSIResponse, pdu.OpDataIn:
		if h.Opcode() == pdu.OpDataIn && h[1]&1 == 0 {
			return
		}
		if i.status[h.ITT()]++; i.status[h.ITT()] > 1 {
			t.Fatalf("task %v has two statuses", h.ITT())
		}
	}
}

func be32(h *pdu.Header, at int) uint32 {
	return uint32(h[at])<<24 | uint32(h[at+1])<<16 | uint32(h[at+2])<<8 | uint32(h[at+3])
}

// TestRandom sends random PDUs, most of them nearly right: nothing panics, no limit is passed, every number that is sent
// follows its rule, no task has two statuses, and at the end everything was given back.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := defaults()
		o.params.InitialR2T = rapid.Bool().Draw(rt, "InitialR2T")
		o.params.MaxOutstandingR2T = uint16(rapid.IntRange(1, 4).Draw(rt, "MaxOutstandingR2T"))
		o.memory = int64(rapid.SampledFrom([]int{1 << 20, 18 << 20, 128 << 20}).Draw(rt, "memory"))
		o.window = rapid.SampledFrom([]int{16, 32}).Draw(rt, "window")
		o.params.ISCSIProtocolLevel = 2
		o.params.TaskReporting = login.TaskReporting(rapid.IntRange(0, 2).Draw(rt, "TaskReporting"))
		p := newPeer(t, o)
		i := &initiator{cmdSN: firstSN, status: map[pdu.ITT]int{}, maxSN: firstSN, stat: map[*Conn]pdu.StatSN{p.conns[0]: firstStat}}
		for cid := range rapid.IntRange(0, 2).Draw(rt, "connections") {
			i.stat[p.join(t, o, pdu.CID(cid+1))] = firstStat
		}
		see := func() {
			for _, c := range p.conns {
				if p.wants[c] { // as a portal does
					p.take(t, c, func(u *PDU) { i.see(rt, c, u) })
				}
			}
		}
		limit := o.memory + int64(BufferMax)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			p.hold = rapid.Bool().Draw(rt, "hold")
			c := rapid.SampledFrom(p.conns).Draw(rt, "connection")
			i.step(rt, p, c)
			if rapid.Bool().Draw(rt, "take") {
				see()
			}
			if len(p.conns) > 1 && rapid.IntRange(0, 15).Draw(rt, "again") == 0 && !p.s.Ended() && !p.s.quiet {
				if n, err := p.s.AddConn(result(o, c.cid)); err == nil { // a connection that there is, or was
					p.conns, i.stat[n] = append(p.conns, n), firstStat
				}
			}
			if rapid.IntRange(0, 3).Draw(rt, "finish") == 0 {
				p.finish(pdu.ReservedTag)
			}
			if used, _ := p.pool.Used(); used > limit || len(p.s.order.held) > o.window || len(p.s.tasks) > o.window*2+immediateMax {
				rt.Fatalf("%d bytes, %d held, %d tasks", used, len(p.s.order.held), len(p.s.tasks))
			}
			if p.s.Ended() {
				break
			}
		}
		p.hold = false
		p.finish(pdu.ReservedTag)
		i.drain(rt, p, see)
		p.over(t)
	})
}

// drain acknowledges what comes until nothing comes any more: no connection is held up then.
func (i *initiator) drain(t *rapid.T, p *peer, see func()) {
	for range 100 {
		see()
		for _, c := range p.conns {
			if !c.closing {
				h := header(&pdu.NOPOut{Immediate: true, ITT: pdu.ReservedTag, TTT: pdu.ReservedTag, InitiatorSNs: pdu.InitiatorSNs{
					CmdSN: p.s.order.exp, ExpStatSN: i.stat[c],
				}}, 0)
				_ = p.send(c, h, nil, nil)
			}
		}
	}
	for _, c := range p.conns {
		if len(c.out) > 0 {
			t.Fatalf("connection %d is held up by %d fences", c.cid, len(p.s.fences))
		}
	}
}

// step sends one PDU, or has something else happen.
func (i *initiator) step(t *rapid.T, p *peer, c *Conn) {
	sns := pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat[c] - pdu.StatSN(rapid.IntRange(-1, 2).Draw(t, "stat"))}
	if rapid.IntRange(0, 9).Draw(t, "off") == 0 {
		sns.CmdSN += pdu.CmdSN(rapid.IntRange(0, 40).Draw(t, "by")) - 20
	}
	tag := func() pdu.ITT { return pdu.ITT(rapid.IntRange(0, int(i.itt)).Draw(t, "tag")) }
	imm := rapid.IntRange(0, 9).Draw(t, "immediate") == 0
	next := func() {
		if !imm && sns.CmdSN == i.cmdSN {
			i.cmdSN = i.cmdSN.Next()
		}
	}
	switch rapid.IntRange(0, 11).Draw(t, "what") {
	case 0, 1, 2, 3:
		i.itt++
		h := pdu.SCSICommand{
			Immediate: imm, Final: true, ITT: i.itt, InitiatorSNs: sns, LUN: pdu.LUNOf(uint16(rapid.IntRange(0, 2).Draw(t, "lun"))),
			Attr: rapid.SampledFrom([]pdu.TaskAttr{1, 1, 1, 2, 3, 0}).Draw(t, "attribute"),
		}
		blocks := rapid.IntRange(0, 40).Draw(t, "blocks")
		h.ExpectedDataTransferLength = uint32(max(0, blocks+rapid.SampledFrom([]int{0, 0, 0, 1, -1, 30000}).Draw(t, "more")) * blockSize)
		data := 0
		if rapid.Bool().Draw(t, "write") {
			h.Write, h.CDB = true, rw10(0x2a, uint32(rapid.IntRange(0, 70000).Draw(t, "lba")), uint16(blocks))
			data = rapid.SampledFrom([]int{0, 512, 4096, 5000}).Draw(t, "data")
			h.Final = rapid.Bool().Draw(t, "final")
		} else {
			h.Read, h.CDB = true, rw10(rapid.SampledFrom([]byte{0x28, 0x12, 0x00, 0xa0}).Draw(t, "op"), 0, uint16(blocks))
		}
		next()
		_ = p.send(c, header(&h, data), nil, make([]byte, data))
	case 4, 5, 6:
		i.answer(t, p, c, sns.ExpStatSN)
	case 7:
		i.itt++
		next()
		_ = p.send(c, header(&pdu.TMFRequest{
			Immediate: imm, Function: pdu.TMFFunction(rapid.IntRange(0, 13).Draw(t, "function")), ITT: i.itt, InitiatorSNs: sns,
			ReferencedTaskTag: tag(), RefCmdSN: sns.CmdSN - pdu.CmdSN(rapid.IntRange(0, 5).Draw(t, "back")),
		}, 0), nil, nil)
	case 8:
		next()
		n := rapid.IntRange(0, 5000).Draw(t, "len")
		_ = p.send(c, header(&pdu.NOPOut{Immediate: imm, ITT: 1 << 20, TTT: pdu.ReservedTag, InitiatorSNs: sns}, n), nil, make([]byte, n))
	case 9:
		text := rapid.SampledFrom([]string{"SendTargets=\x00", "a=b\x00", "bad", "", "MaxRecvDataSegmentLength=512\x00"}).Draw(t, "text")
		next()
		_ = p.send(c, header(&pdu.TextRequest{
			Immediate: imm, Final: rapid.Bool().Draw(t, "f"), ITT: 2 << 20, TTT: pdu.ReservedTag, InitiatorSNs: sns,
		}, len(text)), nil, []byte(text))
	case 10:
		switch rapid.IntRange(0, 8).Draw(t, "event") {
		case 0:
			c.Ping()
		case 8:
			c.Prove(p.marks.next())
		case 1:
			p.s.AbortUnit(0, p.s.cfg.Resets.Add(1))
			p.settle()
		case 2:
			p.s.RequestLogout(1)
		case 3:
			p.s.RemoveUnit(0)
			p.settle()
		case 7:
			p.s.Tick()
		case 4:
			p.s.Report(0, scsi.AttentionLUNsChanged)
		case 5:
			c.Lost()
			p.settle()
		case 6:
			if rapid.IntRange(0, 4).Draw(t, "drop") == 0 {
				p.s.Quiesce()
				p.s.Drop()
				p.settle()
			}
		}
	case 11:
		raw := rapid.SliceOfN(rapid.Byte(), pdu.BHSLen, pdu.BHSLen).Draw(t, "raw")
		h := pdu.Header(raw)
		h[4], h[5], h[6] = 0, 0, h[6]&0x1f
		_ = p.send(c, h, nil, bytes.Repeat([]byte{0}, h.DataSegmentLen()))
	}
}

// answer sends a Data-Out for the oldest R2T, most often the right one.
func (i *initiator) answer(t *rapid.T, p *peer, c *Conn, stat pdu.StatSN) {
	h := pdu.DataOut{ITT: i.itt, TTT: pdu.ReservedTag, Final: true, ExpStatSN: stat}
	n := rapid.SampledFrom([]int{0, 512, 3584}).Draw(t, "len")
	if len(i.r2ts) > 0 {
		r := i.r2ts[0]
		i.r2ts = i.r2ts[1:]
		h.ITT, h.TTT, h.BufferOffset, n = r.ITT, r.TTT, r.BufferOffset, int(r.DesiredDataTransferLength)
	}
	if rapid.IntRange(0, 19).Draw(t, "wrong") == 0 {
		h.DataSN++
	}
	_ = p.send(c, header(&h, n), nil, make([]byte, n))
}

// TestMemoryWaits has writes and reads wait for memory of the session and of the pool, and abort one that waits.
func TestMemoryWaits(t *testing.T) {
	o := defaults()
	o.bytes, o.memory = BufferMax, 40<<20
	p := newPeer(t, o)
	c := p.conns[0]
	p.hold = true
	var got []pdu.Opcode
	take := func() { p.take(t, c, func(u *PDU) { got = append(got, u.Header.Opcode()) }) }
	for i := range 6 { // 8 MiB each: two fit
		h := pdu.SCSICommand{
			Final: true, Write: true, ITT: pdu.ITT(i), ExpectedDataTransferLength: 8 << 20, CDB: rw10(0x2a, 0, 16384),
			InitiatorSNs: pdu.InitiatorSNs{CmdSN: firstSN + pdu.CmdSN(i)},
		}
		if err := p.send(c, header(&h, 0), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	take()
	if len(got) != 2 || got[0] != pdu.OpR2T || got[1] != pdu.OpR2T || len(p.s.memory.queue) != 4 {
		t.Fatalf("%v and %d waiting", got, len(p.s.memory.queue))
	}
	for _, ref := range []pdu.ITT{2, 0} { // one that waits, and one that holds memory
		h := pdu.TMFRequest{Immediate: true, Function: pdu.TMFAbortTask, ITT: 100 + ref, ReferencedTaskTag: ref, InitiatorSNs: pdu.InitiatorSNs{CmdSN: pdu.CmdSN(firstSN).Add(6)}}
		if err := p.send(c, header(&h, 0), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	got = nil
	take()
	if len(got) != 3 || len(p.s.memory.queue) != 2 { // two answers, and the R2T of the next
		t.Fatalf("%v and %d waiting", got, len(p.s.memory.queue))
	}
	p.over(t)
}

// TestPoolWaitAcrossSessions has one session wait for memory that another one holds.
func TestPoolWaitAcrossSessions(t *testing.T) {
	o := defaults()
	o.memory, o.window = 17<<20, 16
	p := newPeer(t, o)
	big := p.pool.Lease(BufferMax)
	p.hold = true
	h := pdu.SCSICommand{
		Final: true, Read: true, ITT: 1, ExpectedDataTransferLength: 4 << 20, CDB: rw10(0x28, 0, 8192),
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: firstSN},
	}
	if err := p.send(p.conns[0], header(&h, 0), nil, nil); err != nil {
		t.Fatal(err)
	}
	if len(p.tasks) != 0 || p.pool.Waiting() != 1 {
		t.Fatalf("%d tasks, %d waiting", len(p.tasks), p.pool.Waiting())
	}
	big.Release()
	if !p.woken {
		t.Fatal("not woken")
	}
	p.settle()
	if len(p.tasks) != 1 {
		t.Fatalf("%d tasks", len(p.tasks))
	}
	p.over(t)
}

// TestWindowShrinks has a session begin when there is little memory left to reserve.
func TestWindowShrinks(t *testing.T) {
	o := defaults()
	o.window, o.memory = 256, 512<<10
	p := newPeer(t, o)
	if w := p.s.Window(); w < WindowMin || w >= 256 {
		t.Errorf("window %d", w)
	}
	p.over(t)
	if _, err := New(Config{Login: result(o, 0), Window: 16, Bytes: BufferMax, Pool: NewPool(4096), Nexus: p.nexus, Env: p, Targets: p, Wake: func() {}}); err == nil {
		t.Error("a session without memory begins")
	}
}

// BenchmarkRead and BenchmarkWrite are 4 KiB commands through the engine alone, eight at a time.
func BenchmarkRead(b *testing.B)  { benchmark(b, 0x28) }
func BenchmarkWrite(b *testing.B) { benchmark(b, 0x2a) }

func benchmark(b *testing.B, op byte) {
	o := defaults()
	o.params.InitiatorMaxRecvDataSegmentLength = 65536
	p := newPeer(b, o)
	c := p.conns[0]
	data := make([]byte, 4096)
	sn := pdu.CmdSN(firstSN)
	h := pdu.SCSICommand{Final: true, Attr: 1, ExpectedDataTransferLength: 4096}
	n := 0
	if op == 0x2a {
		h.Write, n = true, 4096
	} else {
		h.Read = true
	}
	wire := make([]byte, 0, pdu.BHSLen)
	out := make([]PDU, 0, 16)
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		h.ITT, h.CDB, h.CmdSN = pdu.ITT(i&0xff), rw10(op, uint32(i&1023)*8, 8), sn
		sn = sn.Next()
		hdr := (*pdu.Header)(h.AppendHeader(wire[:0], n))
		pl, err := c.Claim(hdr)
		if err != nil {
			b.Fatal(err)
		}
		copy(pl.Bytes(), data[:n])
		if err := c.Receive(hdr, nil, pl); err != nil {
			b.Fatal(err)
		}
		p.settle()
		if i%8 == 7 {
			out = c.Take(out[:0], 1<<20)
			p.settle()
			if len(out) != 8 {
				b.Fatalf("%d PDUs", len(out))
			}
			for k := range out {
				out[k].Release()
			}
		}
	}
}
