package hostile

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

func hostileLengths() []peer.Check {
	return peer.Suite("hostile lengths",
		peer.Check{Title: "declared more than sent", Run: hostileShort},
		peer.Check{Title: "cut at every byte of a PDU", Run: hostileCut},
		peer.Check{Title: "DataSegmentLength of 16 MiB for every opcode", Run: hostileHugeData},
		peer.Check{Title: "additional headers for every opcode", Run: hostileAHS},
		peer.Check{Title: "transfer of 4 GiB", Run: hostileHugeTransfer},
		peer.Check{Title: "transfer length and LBA at their ends", Run: hostileExtents},
		peer.Check{Title: "GET LBA STATUS at and beyond the end", Run: hostileLBAStatus},
		peer.Check{Title: "allocation lengths", Run: hostileAllocation},
		peer.Check{Title: "parameter lists shorter than they say", Run: hostileParameters},
		peer.Check{Title: "garbage", Run: hostileGarbage},
	)
}

func hostileShort(t peer.T, g *peer.Target) {
	for _, n := range []int{1, 48, 512, 4096} {
		p := g.Session(t)
		c := wire.Command(wire.Final|wire.Write, p.NextITT(), p.LUN, 8192, peer.RW16(peer.Write16, 0, 16), nil)
		c.Raw = true
		c.SetDataLen(8192)
		p.Must("send", p.Request(c))
		p.Must("send", p.SendBytes(make([]byte, n)))
		p.CloseWrite()
		p.Closed()
	}
	g.Session(t).Leave()
}

// hostileCut ends the connection after each byte of a login and of a write, by turns with FIN and RST.
func hostileCut(t peer.T, g *peer.Target) {
	p := g.Dial(t)
	text := wire.Keys(append(g.Names(), peer.Keys()...)...)
	login := p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, text)
	login.Raw = true
	login.SetDataLen(len(text))
	b := append(login.BHS[:], text...)
	for n := 0; n < len(b); n += 7 {
		q := g.Dial(t)
		q.Must("send", q.SendBytes(b[:n]))
		if n%2 == 0 {
			q.Reset()
		} else {
			q.Close()
		}
	}
	g.Session(t).Leave()
}

func hostileHugeData(t peer.T, g *peer.Target) {
	for op := range byte(0x40) {
		p := g.Session(t)
		if p.MaxSend >= 1<<24-1 {
			t.Skipf("the target takes 16 MiB")
		}
		r := wire.New(op|wire.Immediate, wire.Final, p.NextITT())
		r.Put32(20, wire.Reserved)
		r.Raw = true
		r.SetDataLen(1<<24 - 1)
		p.Must("send", p.Request(r))
		p.Closed() // without waiting for 16 MiB
	}
	g.Session(t).Leave()
}

func hostileAHS(t peer.T, g *peer.Target) {
	for _, op := range []byte{wire.OpNopOut, wire.OpTMF, wire.OpText, wire.OpDataOut, wire.OpLogout, wire.OpSNACK} {
		p := g.Session(t)
		r := wire.New(op|wire.Immediate, wire.Final, p.NextITT())
		r.Put32(20, wire.Reserved)
		r.AHS = make([]byte, 1020)
		p.Must("send", p.Request(r))
		for {
			if _, err := p.NextWithin(peer.QuietTime); err != nil {
				break
			}
		}
		p.Close()
	}
	g.Session(t).Leave()
}

// hostileHugeTransfer announces what nobody can hold: the target must not allocate it.
func hostileHugeTransfer(t peer.T, g *peer.Target) {
	p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
	for _, cdb := range [][]byte{peer.RW16(peer.Write16, 0, 0xffffffff), peer.RW16(peer.Write16, 0, 1), peer.RW16(peer.Write16, 0, 0), peer.RW16(0x93, 0, 0xffffffff), {0x5f, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff}} {
		itt := p.NextITT()
		p.Must("send", p.Request(wire.Command(wire.Final|wire.Write, itt, p.LUN, 0xffffffff, cdb, nil)))
		r, err := p.Next()
		p.Must("write of 4 GiB", err)
		if r.Opcode() == wire.OpR2T {
			if r.U32(44) > uint32(p.MaxBurst) {
				t.Errorf("R2T for %d bytes, MaxBurstLength is %d", r.U32(44), p.MaxBurst)
			}
			p.Manage(wire.AbortTask, itt, p.CmdSN-1, func(wire.PDU) {})
		}
	}
	for _, cdb := range [][]byte{peer.RW16(peer.Read16, 0, 0xffffffff), {0xa0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, peer.RW16(peer.Read16, 0, 1)} {
		r, err := p.Do(cdb, 0xffffffff, nil)
		p.Must("read of 4 GiB", err)
		if len(r.Data) > 1<<24 {
			t.Errorf("%d bytes", len(r.Data))
		}
	}
	p.MustReady()
	p.Leave()
}

func hostileExtents(t peer.T, g *peer.Target) {
	p := g.Session(t)
	blocks, bl := p.Capacity()
	for _, op := range []byte{peer.Read16, peer.Write16, 0x8f, 0x93, 0x91, 0x90, 0x8e} {
		for _, e := range []struct {
			lba uint64
			n   uint32
		}{
			{blocks, 1}, {blocks - 1, 2}, {1<<64 - 1, 1}, {1<<64 - 1, 0xffffffff}, {1 << 63, 1}, {blocks, 0xffffffff}, {1 << 55, 1 << 31},
		} {
			var out []byte
			in := 0
			switch op {
			case peer.Read16:
				in = bl
			case peer.Write16, 0x93, 0x8e:
				out = peer.Pattern(bl, 1)
			}
			if r := p.MustDo(peer.RW16(op, e.lba, e.n), in, out); r.Status == wire.Good {
				t.Errorf("command %#02x at LBA %#x, %d blocks is GOOD; the unit has %d", op, e.lba, e.n, blocks)
			}
		}
	}
	p.MustReady()
	p.Leave()
}

func hostileLBAStatus(t peer.T, g *peer.Target) {
	p := g.Session(t)
	blocks, _ := p.Capacity()
	for _, lba := range []uint64{blocks, blocks + 1, 1<<64 - 1, 1 << 62} {
		cdb := peer.RW16(0x9e, lba, 4096)
		cdb[1] = 0x12
		if r := p.MustDo(cdb, 4096, nil); r.Status == wire.Good {
			t.Errorf("GET LBA STATUS at LBA %#x of %#x is GOOD", lba, blocks)
		}
	}
	for _, n := range []uint32{0, 1, 7, 8, 23, 24, 0xffffffff} {
		cdb := peer.RW16(0x9e, blocks-1, n)
		cdb[1] = 0x12
		if r := p.MustDo(cdb, 4096, nil); len(r.Data) > int(min(n, 4096)) {
			t.Errorf("%d bytes for an allocation length of %d", len(r.Data), n)
		}
	}
	p.MustReady()
	p.Leave()
}

// hostileAllocation asks for lists with every short allocation length, and with one that is shorter than what the
// initiator expects: nothing but the list may come, and no more than asked for.
func hostileAllocation(t peer.T, g *peer.Target) {
	p := g.Session(t)
	for _, c := range lists() {
		whole := p.MustDo(c.cdb(4096), 4096, nil)
		for _, n := range []int{0, 1, 3, 4, 5, 7, 8, 12, 16, 20, 36, 255} {
			r := p.MustDo(c.cdb(n), 4096, nil)
			if len(r.Data) > n {
				t.Errorf("%s: %d bytes for an allocation length of %d", c.name, len(r.Data), n)
			}
			if c.name == "GET LBA STATUS" {
				continue // returns as many descriptors as fit, and says how many
			}
			if whole.Status == wire.Good && r.Status == wire.Good && n <= len(whole.Data) && string(r.Data) != string(whole.Data[:n]) {
				t.Errorf("%s: with an allocation length of %d the bytes differ", c.name, n)
			}
		}
	}
	p.Leave()
}

// list is a command that returns a list.
type list struct {
	name string
	cdb  func(allocation int) []byte
}

func lists() []list {
	at := func(name string, size, field, width int, head ...byte) list {
		return list{name, func(n int) []byte {
			cdb := make([]byte, size)
			copy(cdb, head)
			switch width {
			case 1:
				cdb[field] = byte(min(n, 255))
			case 2:
				binary.BigEndian.PutUint16(cdb[field:], uint16(n))
			case 4:
				binary.BigEndian.PutUint32(cdb[field:], uint32(n))
			}
			return cdb
		}}
	}
	return []list{
		at("INQUIRY", 6, 3, 2, 0x12),
		at("VPD 00h", 6, 3, 2, 0x12, 1, 0x00), at("VPD 80h", 6, 3, 2, 0x12, 1, 0x80), at("VPD 83h", 6, 3, 2, 0x12, 1, 0x83),
		at("VPD 86h", 6, 3, 2, 0x12, 1, 0x86), at("VPD 8Fh", 6, 3, 2, 0x12, 1, 0x8f), at("VPD B0h", 6, 3, 2, 0x12, 1, 0xb0),
		at("VPD B1h", 6, 3, 2, 0x12, 1, 0xb1), at("VPD B2h", 6, 3, 2, 0x12, 1, 0xb2),
		at("MODE SENSE(6)", 6, 4, 1, 0x1a, 0, 0x3f), at("MODE SENSE(10)", 10, 7, 2, 0x5a, 0, 0x3f),
		at("READ CAPACITY(16)", 16, 10, 4, 0x9e, 0x10), at("GET LBA STATUS", 16, 10, 4, 0x9e, 0x12),
		at("REPORT LUNS", 12, 6, 4, 0xa0), at("REQUEST SENSE", 6, 4, 1, 0x03),
		at("REPORT SUPPORTED OPERATION CODES", 12, 6, 4, 0xa3, 0x0c), at("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", 12, 6, 4, 0xa3, 0x0d),
		at("REPORT TARGET PORT GROUPS", 12, 6, 4, 0xa3, 0x0a), at("LOG SENSE", 10, 7, 2, 0x4d, 0, 0x40),
		at("PERSISTENT RESERVE IN, keys", 10, 7, 2, 0x5e, 0), at("PERSISTENT RESERVE IN, reservation", 10, 7, 2, 0x5e, 1),
		at("PERSISTENT RESERVE IN, capabilities", 10, 7, 2, 0x5e, 2), at("PERSISTENT RESERVE IN, full status", 10, 7, 2, 0x5e, 3),
		at("RECEIVE COPY RESULTS", 16, 10, 4, 0x84, 3), at("RECEIVE ROD TOKEN INFORMATION", 16, 10, 4, 0x84, 7),
		at("READ DEFECT DATA(10)", 10, 7, 2, 0x37, 0, 0x18),
	}
}

// hostileParameters sends parameter lists whose lengths say more than there is.
func hostileParameters(t peer.T, g *peer.Target) {
	p := g.Session(t)
	for _, c := range []struct {
		name string
		cdb  []byte
		out  []byte
	}{
		{"UNMAP of 7 bytes", []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0}, make([]byte, 7)},
		{"UNMAP beyond", []byte{0x42, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0}, make([]byte, 24)},
		{"MODE SELECT(6)", []byte{0x15, 0x10, 0, 0, 28, 0}, append([]byte{0, 0, 0, 0xff, 0x08, 0xff}, make([]byte, 22)...)},
		{"MODE SELECT(10)", []byte{0x55, 0x10, 0, 0, 0, 0, 0, 0, 16, 0}, append([]byte{0, 0, 0, 0, 0, 0, 0xff, 0xff, 0x0a, 0xff}, make([]byte, 6)...)},
		{"MODE SELECT(6) of nothing", []byte{0x15, 0x10, 0, 0, 1, 0}, []byte{0}},
		{"EXTENDED COPY", append([]byte{0x83, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0), append([]byte{0, 0, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 4)...)},
		{"POPULATE TOKEN", append([]byte{0x83, 0x10}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0), append([]byte{0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 0)},
		{"WRITE BUFFER", []byte{0x3b, 2, 0, 0, 0, 0, 0, 2, 0, 0}, make([]byte, 512)},
		{"SANITIZE overwrite", []byte{0x48, 1, 0, 0, 0, 0, 0, 0xff, 0xff, 0}, []byte{0x1f, 0, 0xff, 0xff}},
	} {
		r, err := p.Do(c.cdb, 0, c.out)
		p.Must(c.name, err)
		if r.Status == wire.Good {
			t.Errorf("%s is GOOD", c.name)
		}
		p.MustReady()
	}
	p.Leave()
}

func hostileGarbage(t peer.T, g *peer.Target) {
	for n := range byte(8) {
		p := g.Dial(t)
		_ = p.SendBytes(peer.Pattern(3000+int(n), n))
		p.CloseWrite()
		p.Closed()
		q := g.Session(t)
		_ = q.SendBytes(peer.Pattern(5000+int(n), n))
		q.CloseWrite()
		q.Closed()
	}
	g.Session(t).Leave()
}

func hostileTeardown() []peer.Check {
	return peer.Suite("hostile teardown",
		peer.Check{Title: "many logins of one name at once", Run: hostileLoginRace},
		peer.Check{Title: "connection cut with commands in flight", Run: hostileCutInFlight},
		peer.Check{Title: "connection cut in the middle of a login", Run: hostileCutLogin},
		peer.Check{Title: "reset, abort and logout at once", Run: hostileAllAtOnce},
		peer.Check{Title: "initiator that reads nothing", Run: hostileNoReader},
	)
}

// hostileLoginRace has many connections log in with one ISID at once: all but one must end, and the last one works.
func hostileLoginRace(t peer.T, g *peer.Target) {
	isid := g.Dial(t).ISID
	for range 4 {
		var wg sync.WaitGroup
		for range 12 {
			p := g.Dial(t)
			p.ISID = isid
			wg.Go(func() {
				defer p.Close()
				if p.Login(wire.Login{Initiator: g.Initiator, Target: g.Name, ISID: isid}) == nil {
					_ = p.Ready()
				}
			})
		}
		wg.Wait()
	}
	p := g.Dial(t)
	p.ISID = isid
	p.Enter()
	p.MustReady()
	p.Leave()
}

func hostileCutInFlight(t peer.T, g *peer.Target) {
	for i := range 20 {
		p := g.Session(t, "InitialR2T=Yes")
		bl := p.BlockLen()
		for k := range 6 {
			at := uint64(20000 + (i*6+k)*128) // no two commands share a block
			_, err := p.Start(peer.RW16(peer.Write16, at, 64), 0, peer.Pattern(64*bl, byte(i)))
			p.Must("write", err)
			_, err = p.Start(peer.RW16(peer.Read16, at+64, 64), 64*bl, nil)
			p.Must("read", err)
		}
		if i%3 == 0 {
			time.Sleep(time.Duration(i) * time.Millisecond / 4)
		}
		if i%2 == 0 {
			p.Reset()
		} else {
			p.Close()
		}
	}
	g.Session(t).Leave()
}

func hostileCutLogin(t peer.T, g *peer.Target) {
	for i := range 20 {
		p := g.Dial(t)
		p.MustStep(wire.Final, wire.Security, wire.Operational, append(g.Names(), "AuthMethod=None")...)
		p.Must("send", p.Send(p.LoginPDU(wire.Final, wire.Operational, wire.FullFeature, wire.Keys(peer.Keys()...))))
		if i%2 == 0 {
			p.Reset() // while the target makes the session
		} else {
			p.Close()
		}
	}
	g.Session(t).Leave()
}

func hostileAllAtOnce(t peer.T, g *peer.Target) {
	for range 10 {
		p := g.Session(t, "InitialR2T=Yes", "ImmediateData=No")
		r2t, sn, data := p.Waiting()
		p.Must("send", p.Request(
			wire.TMF(wire.LogicalUnitReset, p.NextITT(), p.LUN, wire.Reserved, 0),
			wire.TMF(wire.AbortTask, p.NextITT(), p.LUN, r2t.ITT(), sn),
			wire.DataOut(wire.Final, r2t.ITT(), r2t.TTT(), p.LUN, 0, 0, data),
			wire.TMF(wire.AbortTaskSet, p.NextITT(), p.LUN, wire.Reserved, 0),
			wire.Logout(wire.LogoutSession, p.NextITT(), 0)))
		p.Closed()
	}
	g.Session(t).Leave()
}

// hostileNoReader fills the window with reads and takes nothing; others must not notice.
func hostileNoReader(t peer.T, g *peer.Target) {
	p := g.Session(t)
	bl := p.BlockLen()
	n := p.MaxCmdSN - p.CmdSN + 1
	for range n {
		_, err := p.Start(peer.RW16(peer.Read16, 40000, uint32((256<<10)/bl)), 256<<10, nil) // where nobody writes
		p.Must("read", err)
	}
	q := g.Session(t)
	begin := time.Now()
	for range 20 {
		q.MustReady()
		q.Store(30000, bl, peer.Pattern(bl, 1))
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("20 writes of another session took %v", d)
	}
	q.Leave()
	p.Reset()
	if _, err := p.Recv(); err == nil || errors.Is(err, wire.ErrQuiet) {
		t.Errorf("the connection lives after it was reset")
	}
}
