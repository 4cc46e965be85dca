package portal

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// initiator is a small initiator over TCP.
type initiator struct {
	t      testing.TB
	nc     net.Conn
	in     *bufio.Reader
	cmdSN  pdu.CmdSN
	stat   pdu.StatSN
	itt    pdu.ITT
	tsih   pdu.TSIH // of the session; 0 before the login of its first connection
	cid    pdu.CID
	digest bool
	attr   pdu.TaskAttr // of rw
	lun    pdu.LUN      // of rw
}

// answer is one PDU from the target.
type answer struct {
	pdu.Header
	data []byte
}

func dial(t testing.TB, p *Portal) *initiator {
	t.Helper()
	nc, err := net.Dial("tcp", p.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &initiator{t: t, nc: nc, in: bufio.NewReaderSize(nc, 1<<16), cmdSN: 0xffffffff, stat: 1, attr: pdu.AttrSimple}
}

// loginKeys are sent in one request, in LoginOperationalNegotiation.
func loginKeys(name, target string, more ...string) []byte {
	keys := append([]string{
		"InitiatorName=" + name, "TargetName=" + target, "SessionType=Normal",
		"InitialR2T=No", "ImmediateData=Yes", "MaxRecvDataSegmentLength=262144",
	}, more...)
	var b []byte
	for _, k := range keys {
		b = append(append(b, k...), 0)
	}
	return b
}

// login logs in as initiator name with the ISID isid.
func (i *initiator) login(name string, isid byte, more ...string) error {
	text := loginKeys(name, testTarget, more...)
	req := pdu.LoginRequest{
		Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ISID: pdu.ISID{0x80, 5: isid}, ITT: 1,
		TSIH: i.tsih, CID: i.cid,
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat}, Data: text,
	}
	for {
		i.write(req.AppendHeader(nil, len(req.Data)), req.Data)
		a, err := i.read()
		if err != nil {
			return err
		}
		r, err := pdu.ParseLoginResponse(&a.Header, nil, a.data)
		if err != nil {
			return err
		}
		i.stat = r.StatSN.Next()
		if r.StatusClass != 0 {
			return fmt.Errorf("login status %02x%02x", r.StatusClass, r.StatusDetail)
		}
		if r.Transit {
			i.tsih = r.TSIH
			return nil
		}
		req.Data, req.ExpStatSN = nil, i.stat
	}
}

func (i *initiator) write(hdr, data []byte) {
	i.t.Helper()
	if i.digest {
		hdr = pdu.AppendHeaderDigest(hdr, hdr)
	}
	b := append(hdr, data...)
	if len(data) > 0 {
		b = pdu.AppendTrailer(b, i.digest, data)
	}
	if _, err := i.nc.Write(b); err != nil {
		i.t.Log(err)
	}
}

// read returns the next PDU.
func (i *initiator) read() (a answer, err error) {
	_ = i.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(i.in, a.Header[:]); err != nil {
		return a, err
	}
	size, err := pdu.Layout(&a.Header, pdu.Limits{MaxData: 1 << 20, HeaderDigest: i.digest, DataDigest: i.digest})
	if err != nil {
		return a, err
	}
	rest := make([]byte, size.Total())
	if _, err := io.ReadFull(i.in, rest); err != nil {
		return a, err
	}
	if _, err := size.CheckHeader(&a.Header, rest[:size.HeaderRest()]); err != nil {
		return a, err
	}
	a.data, err = size.CheckData(rest[size.HeaderRest():])
	return a, err
}

// must reads a PDU of opcode op.
func (i *initiator) must(op pdu.Opcode) answer {
	i.t.Helper()
	a, err := i.read()
	if err != nil {
		i.t.Fatalf("%v expected: %v", op, err)
	}
	if a.Opcode() != op {
		i.t.Fatalf("%v, expected %v", a.Opcode(), op)
	}
	return a
}

// closed waits for the target to close the connection, and closes it; what comes before is thrown away.
func (i *initiator) closed() {
	i.t.Helper()
	for {
		if _, err := i.read(); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				i.t.Fatal("the target does not close the connection")
			}
			_ = i.nc.Close()
			return
		}
	}
}

func (i *initiator) sns() pdu.InitiatorSNs {
	s := pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat}
	i.cmdSN = i.cmdSN.Next()
	return s
}

// rw sends a READ(10) or WRITE(10) of 512-byte blocks with immediate data and returns its tag.
func (i *initiator) rw(op byte, lba uint32, length int, data []byte) pdu.ITT {
	i.itt++
	h := pdu.SCSICommand{
		Final: true, Read: op == 0x28, Write: op == 0x2a, Attr: i.attr, LUN: i.lun, ITT: i.itt,
		ExpectedDataTransferLength: uint32(length), InitiatorSNs: i.sns(),
		CDB: [16]byte{op, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(length / 512 >> 8), byte(length / 512)},
	}
	i.write(h.AppendHeader(nil, len(data)), data)
	return i.itt
}

// ready sends TEST UNIT READY until the unit attentions of the login are gone.
func (i *initiator) ready() {
	i.t.Helper()
	for range 4 {
		i.itt++
		h := pdu.SCSICommand{Final: true, Attr: pdu.AttrSimple, ITT: i.itt, InitiatorSNs: i.sns()}
		i.write(h.AppendHeader(nil, 0), nil)
		a := i.must(pdu.OpSCSIResponse)
		if a.Header[3] == 0 {
			return
		}
	}
	i.t.Fatal("not ready")
}

// logout logs out of the session.
func (i *initiator) logout() {
	i.t.Helper()
	h := pdu.LogoutRequest{Immediate: true, ITT: 99999, InitiatorSNs: pdu.InitiatorSNs{CmdSN: i.cmdSN, ExpStatSN: i.stat}}
	i.write(h.AppendHeader(nil, 0), nil)
	i.must(pdu.OpLogoutResponse)
	i.closed()
}
