package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// T is what a check says its result to; *testing.T is one.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
}

// Target is where the checks are sent.
type Target struct {
	Portal    string // host:port
	Name      string // the target's iSCSI name; anybody may log in
	LUN       uint16 // is erased; 65536 blocks or more
	Initiator string // begin of the names of initiators, an iSCSI name

	// CHAP, if not nil, is a target that asks for CHAP.
	CHAP *CHAP
	// Moved are targets that the portal sends initiators elsewhere for; anybody may log in.
	Moved []Moved
	// Foreign, if not nil, is the designator of a logical unit that the initiator must not reach: 16 bytes, NAA.
	Foreign []byte
	// LoginTimeout is how long a login may take, 0 if it is too long to wait for.
	LoginTimeout time.Duration
	// Drain, if not nil, has the target stop and ask its initiators to log out.
	Drain func()
}

// CHAP is a target with credentials.
type CHAP struct {
	Name               string // the target's iSCSI name
	Initiator          string // begin of the names of initiators, all of which may log in with the same secret
	User, Secret       string
	TargetUser, Mutual string // how the target proves itself; the secret is empty if it does not
	Algorithms         []int  // that the target knows
}

// Moved is a target that is served by another portal.
type Moved struct {
	Name      string // the target's iSCSI name; it has the same LUN as the Target's
	Permanent bool   // status 0102, else 0101
	Address   string // host:port of that portal
}

// Check is one check.
type Check struct {
	Suite, Title string
	Run          func(t T, g *Target)
}

// Suite makes checks of titles and functions.
func Suite(name string, checks ...Check) []Check {
	for i := range checks {
		checks[i].Suite = name
	}
	return checks
}

// Peer is a host that ends the check when the target does not do as it must.
type Peer struct {
	T
	*wire.Host
	G *Target
}

// serial makes every peer a different one: its ISID, and on the loopback network its address, so that the target's
// limits for one of them do not add up over the checks.
var serial atomic.Uint32

// Dial connects.
func (g *Target) Dial(t T) *Peer {
	t.Helper()
	n := serial.Add(1)
	host, _, err := net.SplitHostPort(g.Portal)
	if err != nil {
		t.Fatalf("portal %q: %v", g.Portal, err)
	}
	var from net.IP
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() && ip.To4() != nil {
		from = net.IPv4(127, 1+byte(n>>14)&0x7f, byte(n>>7)&0x7f, 1+byte(n)&0x7f)
	}
	c, err := wire.DialFrom(context.Background(), from, g.Portal)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(c.Close)
	p := &Peer{T: t, Host: wire.NewHost(c, 1), G: g}
	p.ISID = [6]byte{0x80, byte(n >> 16), byte(n >> 8), byte(n), 0, 1}
	p.LUN = wire.LUN(g.LUN)
	return p
}

// Names are the pairs that begin a login to the target.
func (g *Target) Names() []string {
	return []string{"InitiatorName=" + g.Initiator, "SessionType=Normal", "TargetName=" + g.Name}
}

// Keys are the usual keys, some of them with other values.
func Keys(change ...string) []string { return wire.WithKeys(change...) }

// Session logs in with the usual keys but for those that change, and takes the unit attentions.
func (g *Target) Session(t T, change ...string) *Peer {
	t.Helper()
	p := g.Dial(t)
	p.Enter(change...)
	p.Must("TEST UNIT READY", p.Ready())
	return p
}

// Enter logs in.
func (p *Peer) Enter(change ...string) {
	p.Helper()
	p.Must("login", p.Login(wire.Login{
		Initiator: p.G.Initiator, Target: p.G.Name, ISID: p.ISID, Keys: Keys(change...),
	}))
}

// Must ends the check if there is an error.
func (p *Peer) Must(what string, err error) {
	p.Helper()
	if err != nil {
		p.Fatalf("%s: %v", what, err)
	}
}

// MustStep is a Login Request that must be accepted.
func (p *Peer) MustStep(flags, csg, nsg byte, pairs ...string) wire.PDU {
	p.Helper()
	r, err := p.Step(flags, csg, nsg, pairs...)
	p.Must(fmt.Sprintf("login request from stage %d to %d with %.200q", csg, nsg, pairs), err)
	return r
}

// Refused wants a login to be refused with a status of a class, or the connection to be closed.
func (p *Peer) Refused(class byte, err error) {
	p.Helper()
	var l *wire.LoginError
	switch {
	case errors.As(err, &l):
		if l.Class != class {
			p.Errorf("%v, want class %02x", err, class)
		}
	case errors.Is(err, wire.ErrHungUp):
		return
	case err == nil:
		p.Fatalf("the login request was accepted")
	default:
		p.Fatalf("%v, want a refusal of class %02x", err, class)
	}
	p.Closed()
}

// RefusedWith wants one status.
func (p *Peer) RefusedWith(class, detail byte, err error) {
	p.Helper()
	var l *wire.LoginError
	if !errors.As(err, &l) || l.Class != class || l.Detail != detail {
		p.Fatalf("%v, want status %02x%02x", err, class, detail)
	}
	p.Closed()
}

// Answer is the value of a key in the login so far.
func (p *Peer) Answer(key string) string {
	v, _ := wire.Lookup(p.Answers, key)
	return v
}

// Want waits for a PDU with an opcode.
func (p *Peer) Want(op byte) wire.PDU {
	p.Helper()
	r, err := p.Next()
	if err != nil {
		p.Fatalf("want opcode %#02x: %v", op, err)
	}
	if r.Opcode() != op {
		p.Fatalf("opcode %#02x (byte 1 %02x, reason or response %#02x), want %#02x", r.Opcode(), r.Flags(), r.BHS[2], op)
	}
	return r
}

// QuietTime is how long a target that must say nothing is listened to.
const QuietTime = 80 * time.Millisecond

// Quiet wants nothing to come.
func (p *Peer) Quiet() {
	p.Helper()
	r, err := p.NextWithin(QuietTime)
	switch {
	case err == nil:
		p.Fatalf("opcode %#02x for tag %#x where nothing may come", r.Opcode(), r.ITT())
	case !errors.Is(err, wire.ErrQuiet):
		p.Fatalf("%v where nothing may come", err)
	}
}

// ClosedMax bounds the PDUs that may come before the end of a connection.
const ClosedMax = 4096

// Closed wants the connection to be closed; PDUs before that do not count.
func (p *Peer) Closed() {
	p.Helper()
	for range ClosedMax {
		_, err := p.Recv()
		if errors.Is(err, wire.ErrHungUp) {
			p.Close()
			return
		}
		if err != nil {
			p.Fatalf("%v, want the connection to be closed", err)
		}
	}
	p.Fatalf("the connection is not closed")
}

// MustReady wants the session to be alive.
func (p *Peer) MustReady() {
	p.Helper()
	p.Must("TEST UNIT READY", p.Ready())
}

// Leave logs out.
func (p *Peer) Leave() {
	p.Helper()
	p.Must("logout", p.Logout())
}

// Violation wants the target to answer a protocol error at ErrorRecoveryLevel 0: by a Reject, by failing the command, or
// by closing the connection; never with GOOD. Afterwards a fresh session must work.
func (p *Peer) Violation() {
	p.Helper()
	p.NotGood()
	q := p.G.Session(p.T)
	q.Leave()
}

// NotGood reads until something says that the target noticed.
func (p *Peer) NotGood() {
	p.Helper()
	for range ClosedMax {
		r, err := p.NextWithin(p.Timeout)
		switch {
		case errors.Is(err, wire.ErrHungUp):
			return
		case err != nil:
			p.Fatalf("%v, want a Reject, an error or the end of the connection", err)
		case r.Opcode() == wire.OpReject:
			return
		case r.Opcode() == wire.OpResponse && (r.BHS[2] != 0 || r.BHS[3] != wire.Good):
			return
		case r.Opcode() == wire.OpResponse || r.Opcode() == wire.OpDataIn && r.Flags()&wire.HasStatus != 0:
			p.Fatalf("GOOD for what breaks the protocol")
		}
	}
	p.Fatalf("no end of PDUs")
}

// MustDo runs a command and fails on anything but a status.
func (p *Peer) MustDo(cdb []byte, in int, out []byte) wire.Result {
	p.Helper()
	r, err := p.Do(cdb, in, out)
	p.Must(fmt.Sprintf("command %#02x", cdb[0]), err)
	return r
}

// Good runs a command that must succeed.
func (p *Peer) Good(cdb []byte, in int, out []byte) wire.Result {
	p.Helper()
	r := p.MustDo(cdb, in, out)
	if err := r.Err(); err != nil {
		p.Fatalf("command %#02x: %v", cdb[0], err)
	}
	return r
}

// Capacity returns the number of blocks and their length.
func (p *Peer) Capacity() (blocks uint64, length int) {
	p.Helper()
	cdb := make([]byte, 16)
	cdb[0], cdb[1], cdb[13] = 0x9e, 0x10, 32
	r := p.Good(cdb, 32, nil)
	if len(r.Data) < 12 {
		p.Fatalf("READ CAPACITY(16) of %d bytes", len(r.Data))
	}
	return binary.BigEndian.Uint64(r.Data) + 1, int(binary.BigEndian.Uint32(r.Data[8:]))
}

// BlockLen returns the length of a logical block.
func (p *Peer) BlockLen() int {
	p.Helper()
	_, n := p.Capacity()
	return n
}

// RW16 is a READ(16) or WRITE(16) CDB.
func RW16(op byte, lba uint64, blocks uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0] = op
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], blocks)
	return cdb
}

// Operation codes that many checks use.
const (
	Read16  = 0x88
	Write16 = 0x8a
	Inquiry = 0x12
)

// TUR is TEST UNIT READY.
func TUR() []byte { return make([]byte, 6) }

// Pattern is n bytes that differ by seed.
func Pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// Store writes blocks from lba on.
func (p *Peer) Store(lba uint64, bl int, data []byte) {
	p.Helper()
	p.Good(RW16(Write16, lba, uint32(len(data)/bl)), 0, data)
}

// Holds wants the blocks from lba on to be as they were written.
func (p *Peer) Holds(lba uint64, bl int, want []byte) {
	p.Helper()
	r := p.Good(RW16(Read16, lba, uint32(len(want)/bl)), len(want), nil)
	if !slices.Equal(r.Data, want) {
		p.Errorf("the %d bytes at LBA %d differ from what was written", len(want), lba)
	}
}

// Nth is a TEST UNIT READY whose CmdSN is the next one plus n; the host does not count it.
func (p *Peer) Nth(n uint32) wire.PDU {
	c := wire.Command(wire.Final, p.NextITT(), p.LUN, 0, TUR(), nil)
	c.Put32(24, p.CmdSN+n)
	c.Put32(28, p.ExpStatSN)
	return c
}

// Manage sends a task management function and returns the response; a unit's other PDUs until then are handed to other.
func (p *Peer) Manage(function byte, ref, refCmdSN uint32, other func(wire.PDU)) byte {
	p.Helper()
	req := wire.TMF(function, p.NextITT(), p.LUN, ref, refCmdSN)
	p.Must("task management", p.Request(req))
	for range ClosedMax {
		r, err := p.Next()
		p.Must("task management", err)
		if r.Opcode() == wire.OpTMFRsp && r.ITT() == req.ITT() {
			return r.BHS[2]
		}
		if other == nil {
			p.Fatalf("opcode %#02x while a task management response is waited for", r.Opcode())
		}
		other(r)
	}
	p.Fatalf("no task management response")
	return wire.TMFRejected
}

// Waiting begins a write that the target asks the data for.
func (p *Peer) Waiting() (r2t wire.PDU, cmdSN uint32, data []byte) {
	p.Helper()
	data = Pattern(4*p.BlockLen(), 1)
	cmdSN = p.CmdSN
	_, err := p.Start(RW16(Write16, 0, 4), 0, data)
	p.Must("write", err)
	return p.Want(wire.OpR2T), cmdSN, data
}
