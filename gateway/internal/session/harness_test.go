package session

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

const (
	diskSize  = 32 << 20
	blockSize = 512
	// firstSN is close to the wrap, so that every test crosses it.
	firstSN   = 0xfffffffe
	firstStat = 0xfffffffd
)

// disk is a medium in memory.
type disk struct{ data []byte }

func (d *disk) Read(ctx context.Context, p []byte, off int64) error {
	copy(p, d.data[off:])
	return ctx.Err()
}

func (d *disk) Write(ctx context.Context, p []byte, off int64) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	copy(d.data[off:], p)
	return nil
}

func (d *disk) Unmap(_ context.Context, off, n int64) error {
	clear(d.data[off : off+n])
	return nil
}

func (d *disk) CompareAndWrite(_ context.Context, off int64, compare, write []byte) (int, error) {
	for i := range compare {
		if d.data[off+int64(i)] != compare[i] {
			return i, nil
		}
	}
	copy(d.data[off:], write)
	return -1, nil
}

func (d *disk) Allocated(_ context.Context, _, n int64) (bool, int64, error) { return true, n, nil }

// peer is the other end of a session, with its connections, in one goroutine.
type peer struct {
	pool  *Pool
	s     *Session
	conns []*Conn
	disk  *disk
	luns  *scsi.LUNMap
	nexus *scsi.Nexus
	hold  bool // tasks are kept instead of run at once
	tasks []*Task
	notes []string // what Env was told
	// aborted is called in Env.Abort; nil: nothing is.
	aborted func()
	woken   bool
	wants   map[*Conn]bool // in Effects.Write since its last take
	e       Effects
	marks   Marks
	asks    chan ask          // of the tasks that run; nil: none of them has to show anything
	waits   []<-chan struct{} // of the transcript
}

// ask is a call of Config.Prove.
type ask struct {
	c     *Conn
	m     Mark
	reply chan (<-chan struct{})
}

// prove is Config.Prove: the goroutine that the session belongs to answers it.
func (p *peer) prove(c *Conn, m Mark) <-chan struct{} {
	a := ask{c, m, make(chan (<-chan struct{}))}
	p.asks <- a
	return <-a.reply
}

func (p *peer) Abort(lun scsi.LUN) {
	p.notes = append(p.notes, fmt.Sprintf("fence lun=%v", lun))
	if p.aborted != nil {
		p.aborted()
	}
}

func (p *peer) Acknowledged(lun scsi.LUN) {
	p.notes = append(p.notes, fmt.Sprintf("acknowledged lun=%v", lun))
}
func (p *peer) ColdReset() { p.notes = append(p.notes, "cold reset") }

func (p *peer) Targets(initiator, name string) []login.TargetRecord {
	if name != "" && name != "iqn.2026-11.dev.ashlar:t" {
		return nil
	}
	return []login.TargetRecord{{Name: "iqn.2026-11.dev.ashlar:t", Addresses: []string{"127.0.0.1:3260,1"}}}
}

// options are what tests vary.
type options struct {
	params    login.Params
	discovery bool
	window    int
	memory    int64
	bytes     int64
	luns      int
	disk      *disk // nil: a new one
}

func defaults() options {
	p := login.Default()
	p.InitialR2T, p.MaxConnections = false, 4
	p.FirstBurstLength, p.MaxBurstLength = 4096, 8192
	p.InitiatorMaxRecvDataSegmentLength = 2048
	p.TargetMaxRecvDataSegmentLength = 65536
	return options{params: p, window: 32, memory: 128 << 20, bytes: 32 << 20, luns: 2}
}

func result(o options, cid pdu.CID) *login.Result {
	r := &login.Result{
		InitiatorName: "iqn.2026-11.dev.ashlar:i", TargetName: "iqn.2026-11.dev.ashlar:t", PortalGroupTag: 1,
		TSIH: 1, CID: cid, Leading: true, Params: o.params, ExpCmdSN: firstSN, StatSN: firstStat,
	}
	r.MaxCmdSN = r.ExpCmdSN.Add(WindowMin - 1)
	if o.discovery {
		r.Type, r.TargetName = login.SessionDiscovery, ""
	}
	return r
}

func newPeer(t testing.TB, o options) *peer {
	t.Helper()
	p := &peer{pool: NewPool(o.memory), disk: o.disk, wants: map[*Conn]bool{}}
	if p.disk == nil {
		p.disk = &disk{data: make([]byte, diskSize)}
	}
	var maps []scsi.Mapping
	for i := range o.luns {
		u, err := scsi.NewLogicalUnit(scsi.UnitConfig{
			Identity: scsi.Identity{
				NAA: [16]byte{0x60, 15: byte(i)}, Serial: fmt.Sprint("S", i), Vendor: "A", Product: "P", Revision: "1",
			},
			Capacity: diskSize, BlockLength: blockSize, Limits: scsi.DefaultLimits(),
		})
		if err != nil {
			t.Fatal(err)
		}
		maps = append(maps, scsi.Mapping{LUN: uint16(i), Unit: u, Backend: p.disk})
	}
	var err error
	if p.luns, err = scsi.NewLUNMap(maps...); err != nil {
		t.Fatal(err)
	}
	if !o.discovery {
		p.nexus = scsi.NewNexus(scsi.NexusConfig{
			InitiatorName: "i", InitiatorPort: "i,i,0x1", Copies: scsi.NewCopyManager(time.Now, rand.Reader),
		}, p.luns)
	}
	p.s, err = New(Config{
		Login: result(o, 0), Window: o.window, Bytes: o.bytes, Pool: p.pool, Nexus: p.nexus, Env: p, Targets: p,
		Wake: func() { p.woken = true }, Marks: &p.marks, Prove: p.prove,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.join(t, o, 0)
	return p
}

func (p *peer) join(t testing.TB, o options, cid pdu.CID) *Conn {
	t.Helper()
	c, err := p.s.AddConn(result(o, cid))
	if err != nil {
		t.Fatal(err)
	}
	p.conns = append(p.conns, c)
	return c
}

// send gives one PDU to the engine as a portal does.
func (p *peer) send(c *Conn, h pdu.Header, ahs, data []byte) error {
	place, err := c.Claim(&h)
	if err != nil {
		c.Refuse(&h, err)
		p.settle()
		return err
	}
	if !place.Discard() {
		if len(place.Bytes()) != len(data) {
			panic(fmt.Sprintf("place of %d bytes for %d", len(place.Bytes()), len(data)))
		}
		copy(place.Bytes(), data)
	}
	err = c.Receive(&h, ahs, place)
	p.settle()
	return err
}

// settle runs what the engine wants run.
func (p *peer) settle() {
	for {
		p.s.Effects(&p.e)
		for _, c := range p.e.Write {
			p.wants[c] = true
		}
		if len(p.e.Start) == 0 && !p.woken {
			return
		}
		for _, t := range p.e.Start {
			if p.hold {
				p.tasks = append(p.tasks, t)
				continue
			}
			t.Run()
			p.s.Complete(t)
		}
		if p.woken {
			p.woken = false
			p.s.Memory()
		}
	}
}

// finish runs the kept task with tag itt, or all if itt is reserved.
func (p *peer) finish(itt pdu.ITT) int {
	n, kept := 0, p.tasks[:0]
	run := []*Task{}
	for _, t := range p.tasks {
		if itt.IsReserved() || t.itt == itt {
			run = append(run, t)
		} else {
			kept = append(kept, t)
		}
	}
	p.tasks = kept
	for _, t := range run {
		t.Run()
		p.s.Complete(t)
		n++
	}
	p.settle()
	return n
}

// take gets everything that c sends and checks what holds for every PDU.
func (p *peer) take(t testing.TB, c *Conn, f func(*PDU)) {
	t.Helper()
	buf := make([]PDU, 0, 3)
	delete(p.wants, c)
	for {
		buf = c.Take(buf[:0], 1<<20)
		p.settle()
		if len(buf) == 0 {
			return
		}
		for i := range buf {
			if got, want := len(buf[i].Data()), buf[i].Header.DataSegmentLen(); got != want {
				t.Fatalf("%v: %d bytes, header says %d", buf[i].Header.Opcode(), got, want)
			}
			f(&buf[i])
			buf[i].Release()
		}
	}
}

// sn prints a serial number relative to the first.
func rel(sn, first uint32) string { return fmt.Sprintf("%+d", int32(sn-first)) }

// print writes a PDU as one line.
func (p *peer) print(w io.Writer, b *PDU) {
	h := &b.Header
	sns := func(s pdu.TargetSNs) string {
		return fmt.Sprintf("stat=%s exp=%s max=%s", rel(uint32(s.StatSN), firstStat), rel(uint32(s.ExpCmdSN), firstSN), rel(uint32(s.MaxCmdSN), firstSN))
	}
	residual := func(r pdu.Residual) string {
		switch r.Kind {
		case pdu.ResidualOverflow:
			return fmt.Sprintf(" O=%d", r.Count)
		case pdu.ResidualUnderflow:
			return fmt.Sprintf(" U=%d", r.Count)
		}
		return ""
	}
	flag := func(on bool, s string) string {
		if on {
			return " " + s
		}
		return ""
	}
	switch h.Opcode() {
	case pdu.OpDataIn:
		d, err := pdu.ParseDataIn(h, nil, b.Data())
		check(err)
		fmt.Fprintf(w, "DataIn itt=%d sn=%d off=%d len=%d%s", d.ITT, d.DataSN, d.BufferOffset, len(d.Data), flag(d.Final, "F"))
		if d.HasStatus {
			fmt.Fprintf(w, " S status=%v%s %s\n", scsi.Status(d.Status), residual(d.Residual), sns(d.TargetSNs))
		} else {
			fmt.Fprintf(w, " exp=%s max=%s\n", rel(uint32(d.ExpCmdSN), firstSN), rel(uint32(d.MaxCmdSN), firstSN))
		}
	case pdu.OpSCSIResponse:
		r, err := pdu.ParseSCSIResponse(h, nil, b.Data())
		check(err)
		sense, _, err := pdu.ParseSenseData(r.Data)
		check(err)
		text := ""
		if len(sense) > 13 {
			text = " sense=" + scsi.Sense(sense[2], sense[12], sense[13]).String()
		}
		fmt.Fprintf(w, "Response itt=%d status=%v%s%s expdata=%d %s\n", r.ITT, scsi.Status(r.Status), text, residual(r.Residual), r.ExpDataSN, sns(r.TargetSNs))
	case pdu.OpR2T:
		r, err := pdu.ParseR2T(h, nil, b.Data())
		check(err)
		fmt.Fprintf(w, "R2T itt=%d ttt=%d sn=%d off=%d len=%d %s\n", r.ITT, uint32(r.TTT), r.R2TSN, r.BufferOffset, r.DesiredDataTransferLength, sns(r.TargetSNs))
	case pdu.OpTMFResponse:
		r, err := pdu.ParseTMFResponse(h, nil, b.Data())
		check(err)
		info := ""
		if r.AdditionalInfo != [3]byte{} {
			info = fmt.Sprintf(" info=%x", r.AdditionalInfo)
		}
		fmt.Fprintf(w, "TMF itt=%d result=%d%s %s\n", r.ITT, r.Result, info, sns(r.TargetSNs))
	case pdu.OpNOPIn:
		r, err := pdu.ParseNOPIn(h, nil, b.Data())
		check(err)
		fmt.Fprintf(w, "NOPIn itt=%v ttt=%v len=%d %s\n", r.ITT, r.TTT, len(r.Data), sns(r.TargetSNs))
	case pdu.OpTextResponse:
		r, err := pdu.ParseTextResponse(h, nil, b.Data())
		check(err)
		fmt.Fprintf(w, "Text itt=%d ttt=%v%s%s %q %s\n", r.ITT, r.TTT, flag(r.Final, "F"), flag(r.Continue, "C"), r.Data, sns(r.TargetSNs))
	case pdu.OpLogoutResponse:
		r, err := pdu.ParseLogoutResponse(h, nil, b.Data())
		check(err)
		fmt.Fprintf(w, "Logout itt=%d result=%d %s\n", r.ITT, r.Result, sns(r.TargetSNs))
	case pdu.OpReject:
		r, err := pdu.ParseReject(h, nil, b.Data())
		check(err)
		bad := pdu.Header(r.Data)
		fmt.Fprintf(w, "Reject %q of %v itt=%d %s\n", r.Reason, bad.Opcode(), bad.ITT(), sns(r.TargetSNs))
	case pdu.OpAsyncMessage:
		r, err := pdu.ParseAsyncMessage(h, nil, b.Data())
		check(err)
		lun := ""
		if r.Event == pdu.AsyncTasksTerminated {
			lun = fmt.Sprintf(" lun=%d", r.LUN[1])
		}
		if r.Event == pdu.AsyncSCSI {
			sense, _, err := pdu.ParseSenseData(r.Data)
			check(err)
			lun = fmt.Sprintf(" lun=%d sense=%v", r.LUN[1], scsi.Sense(sense[2], sense[12], sense[13]))
		}
		fmt.Fprintf(w, "Async event=%d%s p2=%d p3=%d %s\n", r.Event, lun, r.Param2, r.Param3, sns(r.TargetSNs))
	default:
		panic(h.Opcode())
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// unmap takes a LUN away, as package target does.
func (p *peer) unmap(t testing.TB, lun uint16) {
	t.Helper()
	var kept []scsi.Mapping
	for _, m := range p.luns.Mappings() {
		if m.LUN != lun {
			kept = append(kept, m)
		}
	}
	if err := p.luns.Update(kept...); err != nil {
		t.Fatal(err)
	}
	p.s.RemoveUnit(scsi.FlatLUN(lun))
	p.settle()
}

// state writes what the engine holds.
func (p *peer) state(w io.Writer) {
	itts := []string{}
	for itt, t := range p.s.tasks {
		itts = append(itts, fmt.Sprintf("%d:%d", itt, t.stage))
	}
	sort.Strings(itts)
	fmt.Fprintf(w, "tasks=[%s] active=%d held=%d running=%d\n", strings.Join(itts, " "), p.s.order.active, len(p.s.order.held), p.s.running)
}

// over checks that a session which has ended gave everything back.
func (p *peer) over(t testing.TB) {
	t.Helper()
	for p.finish(pdu.ReservedTag) > 0 { // an ordered command starts when those before it have ended
	}
	p.s.End()
	p.settle()
	for _, c := range p.conns {
		c.Lost()
		p.take(t, c, func(*PDU) { t.Error("a closed connection sends") })
	}
	if used, _ := p.pool.Used(); used != 0 {
		t.Errorf("%d bytes are not given back", used)
	}
	if p.s.memory.bytes != 0 || p.s.order.active != 0 || len(p.s.tasks) != 0 || p.s.running != 0 || p.s.immediate != 0 {
		var b strings.Builder
		p.state(&b)
		t.Errorf("left over: %s bytes=%d immediate=%d", b.String(), p.s.memory.bytes, p.s.immediate)
	}
}

// header builds a BHS from a PDU struct.
func header(p interface {
	AppendHeader([]byte, int) []byte
}, n int,
) pdu.Header {
	return pdu.Header(p.AppendHeader(nil, n)[:pdu.BHSLen])
}

// rw10 returns a READ(10) or WRITE(10) CDB.
func rw10(op byte, lba uint32, blocks uint16) (cdb [16]byte) {
	cdb[0] = op
	cdb[2], cdb[3], cdb[4], cdb[5] = byte(lba>>24), byte(lba>>16), byte(lba>>8), byte(lba)
	cdb[7], cdb[8] = byte(blocks>>8), byte(blocks)
	return cdb
}
