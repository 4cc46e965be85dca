package session

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
	"github.com/cockroachdb/datadriven"
)

// TestTranscripts plays testdata/*: the PDUs of an initiator as text, and what the engine answers.
//
//	new [initialr2t] [noimmediate] [firstburst=N] [maxburst=N] [maxsend=N] [maxr2t=N] [window=N] [discovery] [memory=N]
//	    [level=N] [reporting=N]
//	read|write itt= sn= [lun=] [lba=] [blocks=] [edtl=] [imm] [data=N] [more] [ordered] [head] [c=N]
//	cdb itt= sn= hex= [edtl=] [r] [w] [data=N] ...
//	out itt= [ttt=] [sn=] [off=] len= [f]
//	tmf itt= fn= [ref=] [refsn=] [lun=] [sn=]     nop itt= sn= [ttt=] [len=] [imm]      text itt= sn= [ttt=] [c]
//	logout itt= sn= [reason=] [cid=]              raw op=    hold    finish [itt=]       ack stat=
//	ping   lost   join cid=   lock (output is kept)   take   state   grow lun= (a unit attention)
//	moment   prove [c=N] (at the last moment)   proven [c=N]
//	reset lun= (by another nexus)   unmap lun=   report lun=   drain seconds=   quiesce   busy   drop   tick n=
//
// sn and stat count from the first CmdSN and StatSN of the session, which are close to the wrap.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.HasPrefix(path, filepath.Join("testdata", "fuzz")) {
			return // corpora of the fuzz target
		}
		var p *peer
		o := defaults()
		keep := false
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var b bytes.Buffer
			if d.Cmd == "new" {
				if p != nil {
					p.over(t)
				}
				o = optionsOf(d)
				p, keep = newPeer(t, o), false
				return "ok\n"
			}
			if err := p.step(t, d, o, &keep, &b); err != nil {
				fmt.Fprintf(&b, "error: %v\n", err)
			}
			for _, n := range p.notes {
				fmt.Fprintf(&b, "env: %s\n", n)
			}
			p.notes = nil
			p.waits = slices.DeleteFunc(p.waits, func(answered <-chan struct{}) bool {
				select {
				case <-answered:
					fmt.Fprintln(&b, "answered")
					return true
				default:
					return false
				}
			})
			if !keep {
				for i, c := range p.conns {
					p.take(t, c, func(u *PDU) {
						if i > 0 {
							fmt.Fprintf(&b, "c%d ", i)
						}
						p.print(&b, u)
					})
					if c.Closed() && !c.lost {
						fmt.Fprintf(&b, "close c%d\n", i)
						c.Lost()
						p.settle()
					}
				}
			}
			if b.Len() == 0 {
				return "-\n"
			}
			return b.String()
		})
		if p != nil {
			p.over(t)
		}
	})
}

func number(d *datadriven.TestData, key string, otherwise int) int {
	if d.HasArg(key) {
		var n int
		d.ScanArgs(&testing.T{}, key, &n)
		return n
	}
	return otherwise
}

func optionsOf(d *datadriven.TestData) options {
	o := defaults()
	o.params.InitialR2T = d.HasArg("initialr2t")
	o.params.ImmediateData = !d.HasArg("noimmediate")
	o.params.FirstBurstLength = uint32(number(d, "firstburst", 4096))
	o.params.MaxBurstLength = uint32(number(d, "maxburst", 8192))
	o.params.InitiatorMaxRecvDataSegmentLength = uint32(number(d, "maxsend", 2048))
	o.params.MaxOutstandingR2T = uint16(number(d, "maxr2t", 1))
	o.window = number(d, "window", 32)
	o.params.ISCSIProtocolLevel = uint8(number(d, "level", 1))
	o.params.TaskReporting = login.TaskReporting(number(d, "reporting", 0))
	o.memory = int64(number(d, "memory", 128<<20))
	o.discovery = d.HasArg("discovery")
	return o
}

// step performs one command.
func (p *peer) step(t *testing.T, d *datadriven.TestData, o options, keep *bool, b *bytes.Buffer) error {
	c := p.conns[number(d, "c", 0)]
	itt := pdu.ITT(number(d, "itt", pdu.ReservedTag))
	sns := pdu.InitiatorSNs{CmdSN: firstSN + pdu.CmdSN(number(d, "sn", 0)), ExpStatSN: firstStat + pdu.StatSN(number(d, "stat", 0))}
	lun := pdu.LUNOf(uint16(number(d, "lun", 0)))
	imm := d.HasArg("imm")
	n := number(d, "len", 0)
	switch d.Cmd {
	case "read", "write", "cdb":
		return p.command(d, c, pdu.SCSICommand{Immediate: imm, ITT: itt, InitiatorSNs: sns, LUN: lun})
	case "out":
		h := pdu.DataOut{
			Final: d.HasArg("f"), LUN: lun, ITT: itt, TTT: pdu.TTT(number(d, "ttt", pdu.ReservedTag)),
			DataSN: pdu.DataSN(number(d, "sn", 0)), BufferOffset: uint32(number(d, "off", 0)), ExpStatSN: sns.ExpStatSN,
		}
		return p.send(c, header(&h, n), nil, pattern(int(h.BufferOffset), n))
	case "tmf":
		return p.send(c, header(&pdu.TMFRequest{
			Immediate: !d.HasArg("queued"), Function: pdu.TMFFunction(number(d, "fn", 0)), LUN: lun, ITT: itt, InitiatorSNs: sns,
			ReferencedTaskTag: pdu.ITT(number(d, "ref", pdu.ReservedTag)), RefCmdSN: firstSN + pdu.CmdSN(number(d, "refsn", 0)),
		}, 0), nil, nil)
	case "nop":
		return p.send(c, header(&pdu.NOPOut{
			Immediate: imm, ITT: itt, TTT: pdu.TTT(number(d, "ttt", pdu.ReservedTag)), InitiatorSNs: sns, LUN: lun,
		}, n), nil, make([]byte, n))
	case "text":
		data := []byte(strings.ReplaceAll(d.Input, "\n", "\x00"))
		if len(data) > 0 {
			data = append(data, 0)
		}
		return p.send(c, header(&pdu.TextRequest{
			Immediate: imm, Final: !d.HasArg("more"), Continue: d.HasArg("c-bit"), ITT: itt,
			TTT: pdu.TTT(number(d, "ttt", pdu.ReservedTag)), InitiatorSNs: sns,
		}, len(data)), nil, data)
	case "logout":
		return p.send(c, header(&pdu.LogoutRequest{
			Immediate: imm, Reason: pdu.LogoutReason(number(d, "reason", 0)), ITT: itt, CID: pdu.CID(number(d, "cid", 0)), InitiatorSNs: sns,
		}, 0), nil, nil)
	case "raw":
		h := pdu.Header{0: byte(number(d, "op", 0)), 1: 0x80}
		return p.send(c, h, nil, nil)
	case "hold":
		p.hold = true
	case "finish":
		p.hold = false
		fmt.Fprintf(b, "ran %d\n", p.finish(itt))
		p.hold = d.HasArg("hold")
	case "lock":
		*keep = true
	case "take":
		*keep = false
	case "ping":
		c.Ping()
	case "moment":
		fmt.Fprintf(b, "%d\n", p.marks.next())
	case "prove":
		p.waits = append(p.waits, c.Prove(p.marks.now()))
	case "proven":
		fmt.Fprintf(b, "at %d\n", c.provenAt())
	case "grow":
		u := p.luns.Mappings()[number(d, "lun", 0)].Unit
		check(u.SetCapacity(int64(u.Blocks()+1) * blockSize))
	case "lost":
		c.Lost()
		p.settle()
	case "join":
		p.join(t, o, pdu.CID(number(d, "cid", 1)))
	case "reset": // by another nexus; "begun": it was announced before
		if !d.HasArg("begun") {
			p.s.cfg.Resets.Add(1)
		}
		p.s.AbortUnit(scsi.FlatLUN(uint16(number(d, "lun", 0))), p.s.cfg.Resets.Load())
		p.settle()
	case "reset-begins":
		p.s.cfg.Resets.Add(1)
	case "unmap": // the LUN goes away
		p.unmap(t, uint16(number(d, "lun", 0)))
	case "report":
		p.s.Report(scsi.FlatLUN(uint16(number(d, "lun", 0))), scsi.AttentionLUNsChanged)
	case "tick":
		for range number(d, "n", 1) {
			p.s.Tick()
		}
	case "quiesce":
		p.s.Quiesce()
	case "drop":
		p.s.Drop()
		p.settle()
	case "busy":
		fmt.Fprintf(b, "%d\n", p.s.Busy())
	case "drain":
		p.s.RequestLogout(uint16(number(d, "seconds", 1)))
	case "state":
		p.state(b)
	default:
		t.Fatalf("unknown command %q", d.Cmd)
	}
	return nil
}

// command sends a SCSI Command.
func (p *peer) command(d *datadriven.TestData, c *Conn, h pdu.SCSICommand) error {
	blocks := number(d, "blocks", 1)
	data := number(d, "data", 0)
	h.Final, h.Attr = !d.HasArg("more"), pdu.AttrSimple
	switch {
	case d.HasArg("ordered"):
		h.Attr = pdu.AttrOrdered
	case d.HasArg("head"):
		h.Attr = pdu.AttrHeadOfQueue
	}
	h.ExpectedDataTransferLength = uint32(number(d, "edtl", blocks*blockSize))
	switch d.Cmd {
	case "read":
		h.Read, h.CDB = true, rw10(0x28, uint32(number(d, "lba", 0)), uint16(blocks))
	case "write":
		h.Write, h.CDB = true, rw10(0x2a, uint32(number(d, "lba", 0)), uint16(blocks))
	default:
		var hex string
		d.ScanArgs(&testing.T{}, "hex", &hex)
		for i := 0; i+1 < len(hex); i += 2 {
			_, _ = fmt.Sscanf(hex[i:i+2], "%x", &h.CDB[i/2])
		}
		h.Read, h.Write = d.HasArg("r"), d.HasArg("w")
		h.ExpectedDataTransferLength = uint32(number(d, "edtl", 0))
	}
	return p.send(c, header(&h, data), nil, pattern(0, data))
}

// pattern is the data that an initiator writes at an offset of a command.
func pattern(off, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((off + i) / blockSize * 7)
	}
	return b
}
