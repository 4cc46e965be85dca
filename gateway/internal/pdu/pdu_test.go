package pdu

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// encoder is what all PDUs can do.
type encoder interface {
	AppendHeader(dst []byte, dataLen int) []byte
}

// parse parses any PDU, for tests that do not care which.
func parse(h *Header, ahs, data []byte) (encoder, error) {
	switch h.Opcode() {
	case OpNOPOut:
		p, err := ParseNOPOut(h, ahs, data)
		return &p, err
	case OpNOPIn:
		p, err := ParseNOPIn(h, ahs, data)
		return &p, err
	case OpSCSICommand:
		p, err := ParseSCSICommand(h, ahs, data)
		return &p, err
	case OpSCSIResponse:
		p, err := ParseSCSIResponse(h, ahs, data)
		return &p, err
	case OpTMFRequest:
		p, err := ParseTMFRequest(h, ahs, data)
		return &p, err
	case OpTMFResponse:
		p, err := ParseTMFResponse(h, ahs, data)
		return &p, err
	case OpLoginRequest:
		p, err := ParseLoginRequest(h, ahs, data)
		return &p, err
	case OpLoginResponse:
		p, err := ParseLoginResponse(h, ahs, data)
		return &p, err
	case OpTextRequest:
		p, err := ParseTextRequest(h, ahs, data)
		return &p, err
	case OpTextResponse:
		p, err := ParseTextResponse(h, ahs, data)
		return &p, err
	case OpDataOut:
		p, err := ParseDataOut(h, ahs, data)
		return &p, err
	case OpDataIn:
		p, err := ParseDataIn(h, ahs, data)
		return &p, err
	case OpR2T:
		p, err := ParseR2T(h, ahs, data)
		return &p, err
	case OpLogoutRequest:
		p, err := ParseLogoutRequest(h, ahs, data)
		return &p, err
	case OpLogoutResponse:
		p, err := ParseLogoutResponse(h, ahs, data)
		return &p, err
	case OpSNACK:
		p, err := ParseSNACK(h, ahs, data)
		return &p, err
	case OpAsyncMessage:
		p, err := ParseAsyncMessage(h, ahs, data)
		return &p, err
	case OpReject:
		p, err := ParseReject(h, ahs, data)
		return &p, err
	}
	return nil, &FormatError{Reason: RejectCommandNotSupported, Detail: h.Opcode().String()}
}

// frame encodes a PDU with digests as the wire has it.
func frame(p encoder, data []byte, lim Limits) []byte {
	b := p.AppendHeader(nil, len(data))
	if lim.HeaderDigest {
		b = AppendHeaderDigest(b, b)
	}
	b = append(b, data...)
	return AppendTrailer(b, lim.DataDigest, data)
}

// unframe is the reading side: it takes the first frame of b.
func unframe(b []byte, lim Limits) (encoder, int, error) {
	if len(b) < BHSLen {
		return nil, 0, errShort
	}
	h := (*Header)(b)
	size, err := Layout(h, lim)
	if err != nil {
		return nil, 0, err
	}
	b = b[BHSLen:]
	if len(b) < size.HeaderRest() {
		return nil, 0, errShort
	}
	ahs, err := size.CheckHeader(h, b[:size.HeaderRest()])
	if err != nil {
		return nil, 0, err
	}
	b = b[size.HeaderRest():]
	if len(b) < size.DataRest() {
		return nil, 0, errShort
	}
	data, err := size.CheckData(b[:size.DataRest()])
	if err != nil {
		return nil, 0, err
	}
	p, err := parse(h, ahs, data)
	return p, BHSLen + size.Total(), err
}

var errShort = errors.New("short")

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	lun5    = LUN{1: 5}
	inSNs   = InitiatorSNs{CmdSN: 0x11121314, ExpStatSN: 0x21222324}
	outSNs  = TargetSNs{StatSN: 0x31323334, ExpCmdSN: 0x41424344, MaxCmdSN: 0x51525354}
	inHex   = "11121314 21222324"
	outHex  = "31323334 41424344 51525354"
	lun5Hex = "00050000 00000000"
	ping    = []byte("ping!")
)

// vectors are all PDUs with every field set, next to their bytes written down by hand from the layouts of RFC 7143
// section 11 and RFC 7144. want is the header; the data is that of p.
var vectors = []struct {
	name string
	p    encoder
	want string
}{
	{
		"NOP-Out", &NOPOut{true, lun5, 0x01020304, 0x05060708, inSNs, ping},
		"40800000 00000005" + lun5Hex + "01020304 05060708" + inHex + "00000000 00000000 00000000 00000000",
	},
	{
		"NOP-Out without answer", &NOPOut{Immediate: true, ITT: ReservedTag, TTT: 7, InitiatorSNs: inSNs},
		"40800000 00000000 00000000 00000000 ffffffff 00000007" + inHex + "00000000 00000000 00000000 00000000",
	},
	{
		"NOP-In", &NOPIn{lun5, ReservedTag, 0x05060708, outSNs, ping},
		"20800000 00000005" + lun5Hex + "ffffffff 05060708" + outHex + "00000000 00000000 00000000",
	},
	{
		"SCSI Command, WRITE(10)", &SCSICommand{
			Final: true, Write: true, Attr: AttrSimple, Priority: 9, LUN: lun5, ITT: 0x01020304,
			ExpectedDataTransferLength: 0x1000, InitiatorSNs: inSNs, CDB: [16]byte{0x2a, 0, 1, 2, 3, 4, 0, 0, 8}, Data: ping,
		},
		"01a19000 00000005" + lun5Hex + "01020304 00001000" + inHex + "2a000102 03040000 08000000 00000000",
	},
	{
		"SCSI Command, READ, immediate", &SCSICommand{
			Immediate: true, Final: true, Read: true, Attr: AttrHeadOfQueue, LUN: lun5, ITT: 1, InitiatorSNs: inSNs,
		},
		"41c30000 00000000" + lun5Hex + "00000001 00000000" + inHex + "00000000 00000000 00000000 00000000",
	},
	{
		"SCSI Command, unsolicited data follows", &SCSICommand{Write: true, Attr: AttrOrdered, ITT: 1, InitiatorSNs: inSNs},
		"01220000 00000000 00000000 00000000 00000001 00000000" + inHex + "00000000 00000000 00000000 00000000",
	},
	{
		"SCSI Command, bidirectional with a CDB of 19 bytes", &SCSICommand{
			Final: true, Read: true, Write: true, LUN: lun5, ITT: 1, ExpectedDataTransferLength: 2, InitiatorSNs: inSNs,
			CDB: [16]byte{0x7f}, ExtendedCDB: []byte{0xa1, 0xa2, 0xa3}, Bidirectional: true, BidiReadLength: 0x01020304,
		},
		"01e00000 04000000" + lun5Hex + "00000001 00000002" + inHex + "7f000000 00000000 00000000 00000000" +
			"00040100 a1a2a300 00050200 01020304",
	},
	{
		"SCSI Response", &SCSIResponse{
			Response: ResponseTargetFailure, Status: 2, StatusQualifier: 0x1234, ITT: 1, SNACKTag: 2, TargetSNs: outSNs, ExpDataSN: 3,
			Residual: Residual{ResidualUnderflow, 0x61}, BidiResidual: Residual{ResidualOverflow, 0x62}, Data: ping,
		},
		"21920102 00000005 12340000 00000000 00000001 00000002" + outHex + "00000003 00000062 00000061",
	},
	{
		"SCSI Response, other residuals", &SCSIResponse{
			TargetSNs: outSNs, Residual: Residual{ResidualOverflow, 1}, BidiResidual: Residual{ResidualUnderflow, 2},
		},
		"218c0000 00000000 00000000 00000000 00000000 00000000" + outHex + "00000000 00000002 00000001",
	},
	{
		"TMF Request", &TMFRequest{true, TMFAbortTask, lun5, 1, 2, inSNs, 3, 4},
		"42810000 00000000" + lun5Hex + "00000001 00000002" + inHex + "00000003 00000004 00000000 00000000",
	},
	{
		"TMF Response", &TMFResponse{TMFRejected, [3]byte{0xa1, 0xa2, 0xa3}, 1, outSNs},
		"2280ff00 00000000 a1a2a300 00000000 00000001 00000000" + outHex + "00000000 00000000 00000000",
	},
	{
		"Login Request", &LoginRequest{
			Transit: true, CSG: StageOperational, NSG: StageFullFeature, VersionMax: 3, VersionMin: 2,
			ISID: ISID{0, 2, 0x3d, 1, 2, 3}, TSIH: 0x0a0b, ITT: 1, CID: 0x0c0d, InitiatorSNs: inSNs, Data: ping,
		},
		"43870302 00000005 00023d01 02030a0b 00000001 0c0d0000" + inHex + "00000000 00000000 00000000 00000000",
	},
	{
		"Login Response", &LoginResponse{
			Continue: true, CSG: StageSecurity, NSG: StageOperational, VersionMax: 3, VersionActive: 2,
			ISID: ISID{0x80, 2, 3, 4, 5, 6}, TSIH: 0x0a0b, ITT: 1, TargetSNs: outSNs, StatusClass: 2, StatusDetail: 3, Data: ping,
		},
		"23410302 00000005 80020304 05060a0b 00000001 00000000" + outHex + "02030000 00000000 00000000",
	},
	{
		"Text Request", &TextRequest{true, true, false, lun5, 1, 2, inSNs, ping},
		"44800000 00000005" + lun5Hex + "00000001 00000002" + inHex + "00000000 00000000 00000000 00000000",
	},
	{
		"Text Response", &TextResponse{false, true, lun5, 1, 2, outSNs, ping},
		"24400000 00000005" + lun5Hex + "00000001 00000002" + outHex + "00000000 00000000 00000000",
	},
	{
		"Data-Out", &DataOut{true, lun5, 1, 2, 3, 4, 5, ping},
		"05800000 00000005" + lun5Hex + "00000001 00000002 00000000 00000003 00000000 00000004 00000005 00000000",
	},
	{
		"Data-In", &DataIn{
			Acknowledge: true, LUN: lun5, ITT: 1, TTT: 2, TargetSNs: TargetSNs{0, 3, 4}, DataSN: 5, BufferOffset: 6, Data: ping,
		},
		"25400000 00000005" + lun5Hex + "00000001 00000002 00000000 00000003 00000004 00000005 00000006 00000000",
	},
	{
		"Data-In with status", &DataIn{
			Final: true, HasStatus: true, Status: 4, ITT: 1, TTT: ReservedTag, TargetSNs: outSNs, DataSN: 5, BufferOffset: 6,
			Residual: Residual{ResidualUnderflow, 7}, Data: ping,
		},
		"25830004 00000005 00000000 00000000 00000001 ffffffff" + outHex + "00000005 00000006 00000007",
	},
	{
		"R2T", &R2T{lun5, 1, 2, outSNs, 3, 4, 5},
		"31800000 00000000" + lun5Hex + "00000001 00000002" + outHex + "00000003 00000004 00000005",
	},
	{
		"Logout Request", &LogoutRequest{true, LogoutRemoveForRecovery, 1, 0x0a0b, inSNs},
		"46820000 00000000 00000000 00000000 00000001 0a0b0000" + inHex + "00000000 00000000 00000000 00000000",
	},
	{
		"Logout Response", &LogoutResponse{LogoutCleanupFailed, 1, outSNs, 0x0a0b, 0x0c0d},
		"26800300 00000000 00000000 00000000 00000001 00000000" + outHex + "00000000 0a0b0c0d 00000000",
	},
	{
		"SNACK", &SNACK{SNACKRData, lun5, 1, 2, 3, 4, 5},
		"10830000 00000000" + lun5Hex + "00000001 00000002 00000000 00000003 00000000 00000000 00000004 00000005",
	},
	{
		"Async Message", &AsyncMessage{lun5, outSNs, AsyncVendor, 0x0a, 0x0b0c, 0x0d0e, 0x0f10, ping},
		"32800000 00000005" + lun5Hex + "ffffffff 00000000" + outHex + "ff0a0b0c 0d0e0f10 00000000",
	},
	{
		"Reject", &Reject{RejectInvalidPDUField, outSNs, 3, ping},
		"3f800900 00000005 00000000 00000000 ffffffff 00000000" + outHex + "00000003 00000000 00000000",
	},
}

// dataOf returns the Data of a PDU, nil if it has none.
func dataOf(p encoder) []byte {
	if f := reflect.ValueOf(p).Elem().FieldByName("Data"); f.IsValid() {
		return f.Bytes()
	}
	return nil
}

// same compares PDUs, an empty slice being the same as none.
func same(a, b encoder) bool {
	return strings.NewReplacer("(nil)", "{}").Replace(fmt.Sprintf("%#v", a)) ==
		strings.NewReplacer("(nil)", "{}").Replace(fmt.Sprintf("%#v", b))
}

func TestVectors(t *testing.T) {
	seen := map[Opcode]bool{}
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			want := unhex(t, v.want)
			data := dataOf(v.p)
			if got := v.p.AppendHeader([]byte("x"), len(data))[1:]; !bytes.Equal(got, want) {
				t.Fatalf("encoded\n%x, want\n%x", got, want)
			}
			h := (*Header)(want)
			seen[h.Opcode()] = true
			got, err := parse(h, want[BHSLen:], data)
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, v.p) {
				t.Errorf("parsed\n%#v, want\n%#v", got, v.p)
			}
		})
	}
	if len(seen) != 18 {
		t.Errorf("%d opcodes have a vector, want 18", len(seen))
	}
}

// TestFrames sends all PDUs with all combinations of digests, cut at every byte and with every bit of the digest
// covered parts flipped.
func TestFrames(t *testing.T) {
	for _, lim := range []Limits{
		{MaxData: 5},
		{MaxData: 5, HeaderDigest: true},
		{MaxData: 5, DataDigest: true},
		{MaxData: 5, HeaderDigest: true, DataDigest: true},
	} {
		for _, v := range vectors {
			t.Run(fmt.Sprintf("%s/%v%v", v.name, lim.HeaderDigest, lim.DataDigest), func(t *testing.T) {
				testFrame(t, v.p, lim)
			})
		}
	}
}

func testFrame(t *testing.T, p encoder, lim Limits) {
	wire := frame(p, dataOf(p), lim)
	got, n, err := unframe(append(bytes.Clone(wire), 0xff), lim)
	if err != nil || n != len(wire) || !same(got, p) {
		t.Fatalf("read %#v, %d of %d bytes, %v", got, n, len(wire), err)
	}
	for i := range wire {
		if _, _, err := unframe(wire[:i:i], lim); !errors.Is(err, errShort) {
			t.Fatalf("cut to %d of %d bytes: %v", i, len(wire), err)
		}
	}
	size, err := Layout((*Header)(wire), lim)
	if err != nil {
		t.Fatal(err)
	}
	dataAt := BHSLen + size.HeaderRest()
	for i := range 8 * len(wire) {
		bad := bytes.Clone(wire)
		bad[i/8] ^= 1 << (i % 8)
		inHeader := i/8 < dataAt
		covered := inHeader && lim.HeaderDigest || !inHeader && lim.DataDigest
		if !covered || i/8 >= 4 && i/8 < 8 { // a length: not a digest error but a wrong frame
			_, _, _ = unframe(bad, lim)
			continue
		}
		var de *DigestError
		if _, _, err := unframe(bad, lim); !errors.As(err, &de) || de.Header != inHeader {
			// A flipped opcode may make a PDU of which Layout refuses the AHS.
			var fe *FormatError
			if i/8 == 0 && size.AHS > 0 && errors.As(err, &fe) {
				continue
			}
			t.Fatalf("bit %d of %d flipped: %v", i, 8*len(wire), err)
		}
	}
}

func TestLayout(t *testing.T) {
	head := func(op Opcode, ahsWords byte, n int) *Header {
		h := &Header{0: byte(op), 4: ahsWords}
		h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n)
		return h
	}
	both := Limits{MaxData: MaxDataSegmentLen, HeaderDigest: true, DataDigest: true}
	for _, c := range []struct {
		name   string
		h      *Header
		lim    Limits
		want   FrameSize
		total  int
		reason RejectReason
	}{
		{"nothing", head(OpNOPOut, 0, 0), Limits{}, FrameSize{}, 0, 0},
		{"no data, no data digest", head(OpNOPOut, 0, 0), both, FrameSize{HeaderDigest: 4}, 4, 0},
		{"padding", head(OpDataOut, 0, 5), Limits{MaxData: 5}, FrameSize{Data: 5, Pad: 3}, 8, 0},
		{"no padding", head(OpDataOut, 0, 8), both, FrameSize{HeaderDigest: 4, Data: 8, DataDigest: 4}, 16, 0},
		{"largest", head(OpDataOut, 0, MaxDataSegmentLen), both, FrameSize{HeaderDigest: 4, Data: 1<<24 - 1, Pad: 1, DataDigest: 4}, 1<<24 + 8, 0},
		{"largest AHS", head(OpSCSICommand, 255, 1), Limits{MaxData: 1}, FrameSize{AHS: 1020, Data: 1, Pad: 3}, 1024, 0},
		{"one byte more than agreed", head(OpDataOut, 0, 8193), Limits{MaxData: 8192}, FrameSize{}, 0, RejectProtocolError},
		{"16 MiB before login", head(OpLoginRequest, 0, MaxDataSegmentLen), Limits{MaxData: 8192}, FrameSize{}, 0, RejectProtocolError},
		{"AHS where none may be", head(OpLoginRequest, 1, 0), Limits{MaxData: 8192}, FrameSize{}, 0, RejectInvalidPDUField},
		{"unknown opcode", head(0x1f, 0, 4), Limits{MaxData: 4}, FrameSize{Data: 4}, 4, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Layout(c.h, c.lim)
			var fe *FormatError
			if errors.As(err, &fe) != (c.reason != 0) || fe != nil && fe.Reason != c.reason {
				t.Fatalf("error %v, want reason %v", err, c.reason)
			}
			if got != c.want || got.Total() != c.total {
				t.Errorf("got %+v, %d bytes; want %+v, %d bytes", got, got.Total(), c.want, c.total)
			}
		})
	}
}

// TestDigest has the examples of RFC 7143 appendix A.4 (byte order as on the wire).
func TestDigest(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range up {
		up[i], down[i] = byte(i), byte(31-i)
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"zeros", make([]byte, 32), "aa36918a"},
		{"ones", bytes.Repeat([]byte{0xff}, 32), "43aba862"},
		{"incrementing", up, "4e79dd46"},
		{"decrementing", down, "5cdb3f11"},
		{"SCSI READ(10)", unhex(t, "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"), "563a96d9"},
	} {
		if got := AppendHeaderDigest(nil, c.data); hex.EncodeToString(got) != c.want {
			t.Errorf("%s: %x, want %s", c.name, got, c.want)
		}
	}
}

func TestAppendTrailer(t *testing.T) {
	whole := []byte("0123456789abc")
	want := AppendTrailer(nil, true, whole)
	if len(want) != 3+4 || !bytes.Equal(want[:3], []byte{0, 0, 0}) {
		t.Fatalf("trailer %x", want)
	}
	for i := range whole {
		if got := AppendTrailer(nil, true, whole[:i], whole[i:]); !bytes.Equal(got, want) {
			t.Errorf("split at %d: %x, want %x", i, got, want)
		}
	}
	if got := AppendTrailer(nil, false, whole); !bytes.Equal(got, []byte{0, 0, 0}) {
		t.Errorf("without digest: %x", got)
	}
	if got := AppendTrailer(nil, true); len(got) != 0 {
		t.Errorf("without data: %x", got)
	}
	size := FrameSize{Data: len(whole), Pad: 3, DataDigest: 4}
	if err := size.CheckSplitData(whole, want); err != nil {
		t.Error(err)
	}
	for i := range want {
		if size.CheckSplitData(whole, want[:i]) == nil {
			t.Errorf("trailer of %d bytes accepted", i)
		}
	}
}

func TestWrongLengths(t *testing.T) {
	for _, v := range vectors {
		wire := v.p.AppendHeader(nil, len(dataOf(v.p)))
		h, ahs, data := (*Header)(wire), wire[BHSLen:], dataOf(v.p)
		var fe *FormatError
		if _, err := parse(h, ahs, append(data[:len(data):len(data)], 1)); !errors.As(err, &fe) {
			t.Errorf("%s: data too long: %v", v.name, err)
		}
		if len(data) > 0 {
			if _, err := parse(h, ahs, data[1:]); !errors.As(err, &fe) {
				t.Errorf("%s: data too short: %v", v.name, err)
			}
		}
		for i := range ahs {
			if _, err := parse(h, ahs[:i], data); !errors.As(err, &fe) {
				t.Errorf("%s: AHS of %d bytes: %v", v.name, i, err)
			}
		}
		if _, err := parse(h, append(bytes.Clone(ahs), 0, 0, 0, 0), data); !errors.As(err, &fe) {
			t.Errorf("%s: AHS too long: %v", v.name, err)
		}
	}
}

// TestFormatErrors has PDUs that break a rule of their layout, made from good ones.
func TestFormatErrors(t *testing.T) {
	cmd := &SCSICommand{Final: true, Write: true, Read: true, ITT: 1}
	good := map[Opcode]encoder{}
	for _, v := range vectors {
		good[(*Header)(unhex(t, v.want)).Opcode()] = v.p
	}
	for _, c := range []struct {
		name   string
		p      encoder
		change func(h *Header)
		ahs    string
	}{
		{"NOP-Out, reserved tag, not immediate", &NOPOut{ITT: ReservedTag}, nil, ""},
		{"SCSI Command, neither W nor F", &SCSICommand{Read: true, ITT: 1}, nil, ""},
		{"SCSI Command, immediate data without W", &SCSICommand{Final: true, Read: true, ITT: 1, Data: ping}, nil, ""},
		{"SCSI Command, attribute 5", &SCSICommand{Final: true, ITT: 1, Attr: 5}, nil, ""},
		{"SCSI Command, reserved tag", &SCSICommand{Final: true, ITT: ReservedTag}, nil, ""},
		{"AHS of length 0", cmd, nil, "00000000"},
		{"AHS longer than there is", cmd, nil, "00060100 00000000"},
		{"AHS of the largest length", cmd, nil, "ffff0100 00000000"},
		{"AHS of unknown type", cmd, nil, "00010300"},
		{"AHS, CDB of nothing", cmd, nil, "00010100"},
		{"AHS, two CDBs", cmd, nil, "00020100 aa000000 00020100 aa000000"},
		{"AHS, two read lengths", cmd, nil, "00050200 00000001 00050200 00000001"},
		{"AHS, short read length", cmd, nil, "00040200 00000001"},
		{"AHS, read length of no read", &SCSICommand{Final: true, Write: true, ITT: 1}, nil, "00050200 00000001"},
		{"AHS, CDB of 261 bytes", cmd, nil, "00f60100" + strings.Repeat("00", 248)},
		{"TMF Request, reserved tag", &TMFRequest{ITT: ReservedTag}, nil, ""},
		{"TMF Request with data", good[OpTMFRequest], func(h *Header) { h[7] = 1 }, ""},
		{"Login Request, reserved tag", &LoginRequest{ITT: ReservedTag}, nil, ""},
		{"Text Request, reserved tag", &TextRequest{Final: true, ITT: ReservedTag}, nil, ""},
		{"Text Request, F and C", &TextRequest{Final: true, Continue: true, ITT: 1}, nil, ""},
		{"Data-Out, reserved tag", &DataOut{ITT: ReservedTag}, nil, ""},
		{"Data-In, status without F", good[OpDataIn], func(h *Header) { h[1] = 0x01 }, ""},
		{"Data-In, O and U", good[OpDataIn], func(h *Header) { h[1] = 0x87 }, ""},
		{"SCSI Response, O and U", good[OpSCSIResponse], func(h *Header) { h[1] = 0x86 }, ""},
		{"SCSI Response, o and u", good[OpSCSIResponse], func(h *Header) { h[1] = 0x98 }, ""},
		{"R2T for nothing", &R2T{TTT: 1}, nil, ""},
		{"R2T, reserved TTT", &R2T{TTT: ReservedTag, DesiredDataTransferLength: 1}, nil, ""},
		{"Logout Request, reason 3", &LogoutRequest{Reason: 3}, nil, ""},
		{"Logout Request, reserved tag", &LogoutRequest{ITT: ReservedTag}, nil, ""},
		{"SNACK, type 4", &SNACK{Type: 4}, nil, ""},
		{"unknown opcode", good[OpNOPOut], func(h *Header) { h[0] = 0x1e }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := dataOf(c.p)
			wire := c.p.AppendHeader(nil, len(data))[:BHSLen]
			h := (*Header)(wire)
			if c.change != nil {
				c.change(h)
				data = append(data, make([]byte, h.DataSegmentLen()-len(data))...)
			}
			ahs := unhex(t, c.ahs)
			h[4] = byte(len(ahs) / 4)
			_, err := parse(h, ahs, data)
			var fe *FormatError
			if !errors.As(err, &fe) || fe.Reason == 0 || fe.Detail == "" {
				t.Fatalf("error %v", err)
			}
		})
	}
	h := (*Header)(good[OpNOPOut].AppendHeader(nil, 0))
	if _, err := ParseTextRequest(h, nil, nil); err == nil {
		t.Error("a NOP-Out was parsed as a Text Request")
	}
}

func TestSerial(t *testing.T) {
	for _, c := range []struct {
		a, b uint32
		less bool
	}{
		{0, 0, false},
		{0, 1, true},
		{1, 0, false},
		{0xffffffff, 0, true},
		{0, 0xffffffff, false},
		{0, 1<<31 - 1, true},
		{1<<31 - 1, 0, false},
		{0, 1 << 31, false},
		{1 << 31, 0, false}, // no order
		{0, 1<<31 + 1, false},
		{1<<31 + 1, 0, true},
		{0xfffffff0, 0x10, true},
	} {
		if CmdSN(c.a).Less(CmdSN(c.b)) != c.less || StatSN(c.a).Less(StatSN(c.b)) != c.less ||
			DataSN(c.a).Less(DataSN(c.b)) != c.less || R2TSN(c.a).Less(R2TSN(c.b)) != c.less {
			t.Errorf("%#x < %#x is not %v", c.a, c.b, c.less)
		}
		if CmdSN(c.a).LessEq(CmdSN(c.b)) != (c.less || c.a == c.b) {
			t.Errorf("%#x <= %#x is wrong", c.a, c.b)
		}
	}
	if n := CmdSN(0xffffffff); n.Next() != 0 || n.Add(3) != 2 || n.Add(3).Sub(n) != 3 || n.Sub(n.Add(3)) != -3 {
		t.Error("arithmetic does not wrap")
	}
	if first := CmdSN(0xfffffffe); !first.InWindow(first, first.Add(4)) || !CmdSN(1).InWindow(first, first.Add(4)) ||
		CmdSN(3).InWindow(first, first.Add(4)) || first.InWindow(first, first-1) || CmdSN(0xfffffffd).InWindow(first, first.Add(4)) {
		t.Error("window is wrong")
	}
}

func TestLUN(t *testing.T) {
	for _, c := range []struct {
		lun  LUN
		n    uint16
		ok   bool
		text string
	}{
		{LUN{}, 0, true, "0"},
		{LUN{1: 255}, 255, true, "255"},
		{LUN{0: 0x41, 1: 0x00}, 256, true, "256"},
		{LUN{0: 0x40, 1: 0x05}, 5, true, "5"},
		{LUN{0: 0x7f, 1: 0xff}, 16383, true, "16383"},
		{LUN{0: 0x01, 1: 0x05}, 0, false, "0105000000000000"}, // another bus
		{LUN{0: 0x80}, 0, false, "8000000000000000"},
		{LUN{0: 0xc1, 1: 1}, 0, false, "c101000000000000"}, // well known: REPORT LUNS
		{LUN{1: 1, 2: 1}, 0, false, "0001010000000000"},    // two levels
		{LUN{1: 1, 7: 1}, 0, false, "0001000000000001"},
	} {
		n, ok := c.lun.Number()
		if ok != c.ok || ok && n != c.n || c.lun.String() != c.text {
			t.Errorf("%x: %d, %v, %q; want %d, %v, %q", c.lun[:], n, ok, c.lun, c.n, c.ok, c.text)
		}
	}
	for n := uint16(0); n <= MaxLUNNumber; n++ {
		if got, ok := LUNOf(n).Number(); !ok || got != n {
			t.Fatalf("LUN %d became %d, %v", n, got, ok)
		}
	}
}

func TestResidualOf(t *testing.T) {
	for _, c := range []struct {
		expected uint32
		actual   uint64
		want     Residual
	}{
		{0, 0, Residual{}},
		{512, 512, Residual{}},
		{512, 0, Residual{ResidualUnderflow, 512}},
		{512, 513, Residual{ResidualOverflow, 1}},
		{0xffffffff, 0, Residual{ResidualUnderflow, 0xffffffff}},
		{0, 1 << 40, Residual{ResidualOverflow, 0xffffffff}},
	} {
		if got := ResidualOf(c.expected, c.actual); got != c.want {
			t.Errorf("ResidualOf(%d, %d) = %v, want %v", c.expected, c.actual, got, c.want)
		}
	}
}

func TestToDataIn(t *testing.T) {
	for _, c := range []struct {
		name string
		r    SCSIResponse
		fits bool
	}{
		{"good", SCSIResponse{Residual: Residual{ResidualUnderflow, 3}, TargetSNs: outSNs}, true},
		{"condition met", SCSIResponse{Status: 4}, true},
		{"check condition", SCSIResponse{Status: 2, Data: []byte{0, 0}}, false},
		{"busy", SCSIResponse{Status: 8}, false},
		{"sense data with good", SCSIResponse{Data: []byte{0, 0}}, false},
		{"target failure", SCSIResponse{Response: ResponseTargetFailure}, false},
		{"bidirectional residual", SCSIResponse{BidiResidual: Residual{ResidualOverflow, 1}}, false},
	} {
		d := DataIn{ITT: 1, DataSN: 2}
		if c.r.ToDataIn(&d) != c.fits || d.HasStatus != c.fits || d.Final != c.fits {
			t.Errorf("%s: %+v", c.name, d)
		}
		if c.fits && (d.Status != c.r.Status || d.Residual != c.r.Residual || d.TargetSNs != c.r.TargetSNs || d.DataSN != 2) {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

func TestSenseData(t *testing.T) {
	sense := bytes.Repeat([]byte{0x70}, 18)
	seg := append(AppendSenseData(nil, sense), "more"...)
	for i := range seg {
		got, rest, err := ParseSenseData(seg[:i])
		if (err == nil) != (i == 0 || i >= 20) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
		if i >= 20 && (!bytes.Equal(got, sense) || len(rest) != i-20) {
			t.Errorf("cut to %d bytes: %x, %x", i, got, rest)
		}
	}
}

func TestCDB(t *testing.T) {
	p := SCSICommand{CDB: [16]byte{1, 2}, ExtendedCDB: []byte{3, 4}}
	if got := p.AppendCDB(nil); len(got) != p.CDBLen() || p.CDBLen() != 18 || got[0] != 1 || got[17] != 4 {
		t.Errorf("CDB %x", got)
	}
	long := SCSICommand{Final: true, ITT: 1, ExtendedCDB: make([]byte, MaxCDBLen-16)}
	wire := long.AppendHeader(nil, 0)
	if got, err := ParseSCSICommand((*Header)(wire), wire[BHSLen:], nil); err != nil || got.CDBLen() != MaxCDBLen {
		t.Errorf("CDB of %d bytes, %v", got.CDBLen(), err)
	}
}

func TestPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"data too long":          func() { (&NOPIn{}).AppendHeader(nil, MaxDataSegmentLen+1) },
		"negative data":          func() { (&NOPIn{}).AppendHeader(nil, -1) },
		"data where none may be": func() { (&R2T{}).AppendHeader(nil, 1) },
		"LUN":                    func() { LUNOf(MaxLUNNumber + 1) },
		"CDB":                    func() { (&SCSICommand{ExtendedCDB: make([]byte, MaxCDBLen)}).AppendHeader(nil, 0) },
		"sense":                  func() { AppendSenseData(nil, make([]byte, 1<<16)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestAppendHeaderDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 128)
	d := DataIn{Final: true, HasStatus: true}
	if n := testing.AllocsPerRun(100, func() { buf = d.AppendHeader(buf[:0], 4096) }); n != 0 {
		t.Errorf("%v allocations per Data-In", n)
	}
	cmd := SCSICommand{Final: true, Write: true, ITT: 1, Data: ping}
	wire := cmd.AppendHeader(nil, len(ping))
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseSCSICommand((*Header)(wire), nil, ping) }); n != 0 {
		t.Errorf("%v allocations per parsed SCSI Command", n)
	}
}

func TestHeaderAccessors(t *testing.T) {
	h := (*Header)(unhex(t, "c1800000 ff010203 40050000 00000000 01020304 05060708"+inHex+strings.Repeat("00", 16)))
	if h.Opcode() != OpSCSICommand || !h.Immediate() || !h.Final() || h.AHSLen() != MaxAHSLen || h.DataSegmentLen() != 0x010203 ||
		h.LUN() != LUNOf(5) && h.LUN() != (LUN{0: 0x40, 1: 5}) || h.ITT() != 0x01020304 || h.TTT() != 0x05060708 ||
		h.CmdSN() != inSNs.CmdSN || h.ExpStatSN() != inSNs.ExpStatSN {
		t.Errorf("%x", h[:])
	}
	if !OpSNACK.FromInitiator() || OpNOPIn.FromInitiator() || Opcode(0x07).FromInitiator() {
		t.Error("direction of opcodes")
	}
	for op := range Opcode(0x40) {
		if op.String() == "" {
			t.Error("opcode without name")
		}
	}
	r := RejectOf(h, RejectProtocolError)
	if !bytes.Equal(r.Data, h[:]) || binary.BigEndian.Uint32(r.AppendHeader(nil, BHSLen)[16:]) != ReservedTag {
		t.Error("RejectOf")
	}
	if (ISID{0x80}).Type() != ISIDRandom || (ISID{0xc0}).Type() != ISIDReserved || (ISID{0x40}).Type() != ISIDEnterprise {
		t.Error("ISID type")
	}
}
