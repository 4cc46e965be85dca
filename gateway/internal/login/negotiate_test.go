package login

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// negotiated runs one list through the operational stage of a normal session's first connection.
func negotiated(t *testing.T, cfg Config, kv ...string) (map[string]string, Params) {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	n := newNegotiation(&cfg)
	out, err := n.operational(pairsOf(kv...))
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]string{}
	for _, p := range out {
		if _, twice := answers[p.Key]; twice {
			t.Fatalf("%s answered twice", p.Key)
		}
		answers[p.Key] = p.Value
	}
	params, err := n.finish()
	if err != nil {
		t.Fatal(err)
	}
	return answers, params
}

const none = "(no answer)"

var keyCases = []struct {
	offer, answer string
	field         string // of Params
	want          any
}{
	{"HeaderDigest=None", "None", "HeaderDigest", DigestNone},
	{"HeaderDigest=CRC32C,None", "CRC32C", "HeaderDigest", DigestCRC32C},
	{"HeaderDigest=None,CRC32C", "None", "HeaderDigest", DigestNone},
	{"DataDigest=CRC32C", "CRC32C", "DataDigest", DigestCRC32C},
	{"DataDigest=X-md5,CRC32C", "CRC32C", "DataDigest", DigestCRC32C},
	{"DataDigest=X-md5", "Reject", "DataDigest", DigestNone},
	{"DataDigest=crc32c", "Reject", "DataDigest", DigestNone},
	{"DataDigest=", "Reject", "DataDigest", DigestNone},
	{"MaxConnections=1", "1", "MaxConnections", uint16(1)},
	{"MaxConnections=65535", "4", "MaxConnections", uint16(4)},
	{"MaxConnections=3", "3", "MaxConnections", uint16(3)},
	{"MaxConnections=0", "Reject", "MaxConnections", uint16(1)},
	{"MaxConnections=65536", "Reject", "MaxConnections", uint16(1)},
	{"InitialR2T=Yes", "Yes", "InitialR2T", true},
	{"InitialR2T=No", "No", "InitialR2T", false},
	{"InitialR2T=yes", "Reject", "InitialR2T", true},
	{"InitialR2T=", "Reject", "InitialR2T", true},
	{"ImmediateData=Yes", "Yes", "ImmediateData", true},
	{"ImmediateData=No", "No", "ImmediateData", false},
	{"ImmediateData=1", "Reject", "ImmediateData", true},
	{"MaxRecvDataSegmentLength=512", none, "InitiatorMaxRecvDataSegmentLength", uint32(512)},
	{"MaxRecvDataSegmentLength=0x10000", none, "InitiatorMaxRecvDataSegmentLength", uint32(65536)},
	{"MaxRecvDataSegmentLength=16777215", none, "InitiatorMaxRecvDataSegmentLength", uint32(16777215)},
	{"MaxBurstLength=512", "512", "MaxBurstLength", uint32(512)},
	{"MaxBurstLength=16777215", "16776192", "MaxBurstLength", uint32(16776192)},
	{"MaxBurstLength=511", "Reject", "MaxBurstLength", uint32(262144)},
	{"MaxBurstLength=16777216", "Reject", "MaxBurstLength", uint32(262144)},
	{"FirstBurstLength=65536", "65536", "FirstBurstLength", uint32(65536)},
	{"FirstBurstLength=16777215", "262144", "FirstBurstLength", uint32(262144)},
	{"FirstBurstLength=511", "Reject", "FirstBurstLength", uint32(65536)},
	{"DefaultTime2Wait=0", "2", "DefaultTime2Wait", uint16(2)},
	{"DefaultTime2Wait=3600", "3600", "DefaultTime2Wait", uint16(3600)},
	{"DefaultTime2Wait=3601", "Reject", "DefaultTime2Wait", uint16(2)},
	{"DefaultTime2Retain=3600", "0", "DefaultTime2Retain", uint16(0)},
	{"DefaultTime2Retain=3601", "Reject", "DefaultTime2Retain", uint16(20)},
	{"MaxOutstandingR2T=65535", "1", "MaxOutstandingR2T", uint16(1)},
	{"MaxOutstandingR2T=0", "Reject", "MaxOutstandingR2T", uint16(1)},
	{"DataPDUInOrder=No", "Yes", "DataPDUInOrder", true},
	{"DataPDUInOrder=Yes", "Yes", "DataPDUInOrder", true},
	{"DataSequenceInOrder=No", "Yes", "DataSequenceInOrder", true},
	{"DataSequenceInOrder=Maybe", "Reject", "DataSequenceInOrder", true},
	{"ErrorRecoveryLevel=2", "0", "ErrorRecoveryLevel", uint8(0)},
	{"ErrorRecoveryLevel=3", "Reject", "ErrorRecoveryLevel", uint8(0)},
	{"ErrorRecoveryLevel=256", "Reject", "ErrorRecoveryLevel", uint8(0)},
	{"TaskReporting=FastAbort,ResponseFence,RFC3720", "ResponseFence", "TaskReporting", TaskReportingResponseFence},
	{"TaskReporting=RFC3720", "RFC3720", "TaskReporting", TaskReportingRFC3720},
	{"TaskReporting=FastAbort", "Reject", "TaskReporting", TaskReportingRFC3720},
	{"iSCSIProtocolLevel=31", "2", "ISCSIProtocolLevel", uint8(2)},
	{"iSCSIProtocolLevel=1", "1", "ISCSIProtocolLevel", uint8(1)},
	{"iSCSIProtocolLevel=32", "Reject", "ISCSIProtocolLevel", uint8(1)},
	{"IFMarker=No", "No", "", nil},
	{"OFMarker=Yes", "No", "", nil},
	{"OFMarker=2", "Reject", "", nil},
	{"IFMarkInt=2048~8192", "Reject", "", nil},
	{"OFMarkInt=1~65535", "Reject", "", nil},
	{"X-com.example.key=1", "NotUnderstood", "", nil},
	{"Y-unknown=", "NotUnderstood", "", nil},
	{"maxburstlength=512", "NotUnderstood", "MaxBurstLength", uint32(262144)}, // keys are case sensitive
	{"X#NodeArchitecture=a,b", none, "", nil},
	{"InitiatorAlias=host", none, "", nil},
	{"SendTargets=All", "Reject", "", nil},
	{"TargetAddress=1.2.3.4", "Reject", "", nil},
	{"TargetPortalGroupTag=1", "Reject", "", nil},
	{"TargetAlias=NotUnderstood", none, "", nil}, // an answer to what the target declared
	{"AuthMethod=None", "Reject", "", nil},
	{"CHAP_A=5", "Reject", "", nil},
}

func TestKeys(t *testing.T) {
	for _, c := range keyCases {
		t.Run(c.offer, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.MaxConnections = 4
			answers, params := negotiated(t, cfg, c.offer)
			key, _, _ := strings.Cut(c.offer, "=")
			got, ok := answers[key]
			if !ok {
				got = none
			}
			if got != c.answer || len(answers) > 1 {
				t.Errorf("answer %q, want %q", got, c.answer)
			}
			if c.field == "" {
				if params != Default() {
					t.Errorf("parameters changed: %+v", params)
				}
				return
			}
			if v := reflect.ValueOf(params).FieldByName(c.field).Interface(); v != c.want {
				t.Errorf("%s is %v, want %v", c.field, v, c.want)
			}
		})
	}
}

// TestNumbers has spellings of numbers that must not be taken for one.
func TestNumbers(t *testing.T) {
	for _, v := range []string{
		"", " 512", "512 ", "+512", "-1", "5_12", "0x", "0x200g", "1e3", "512.0", "0b1000", "99999999999999999999999",
		"0xffffffffffffffffff", "0x_200", "0X", "0x+200", "Yes", "None",
	} {
		if n, ok := parseNumber(v, 0, 1<<63); ok {
			t.Errorf("%q is %d", v, n)
		}
	}
	for v, want := range map[string]uint64{"0": 0, "512": 512, "0x200": 512, "0X2Ff": 767} {
		if n, ok := parseNumber(v, 0, 1000); !ok || n != want {
			t.Errorf("%q is %d, %v", v, n, ok)
		}
	}
}

func TestFirstBurst(t *testing.T) {
	for _, c := range []struct {
		name   string
		kv     []string
		answer string
		first  uint32
	}{
		{"beyond MaxBurstLength", []string{"MaxBurstLength=4096", "FirstBurstLength=8192"}, "4096", 4096},
		{"beyond MaxBurstLength that comes later", []string{"FirstBurstLength=8192", "MaxBurstLength=4096"}, "4096", 4096},
		{"below", []string{"FirstBurstLength=1024", "MaxBurstLength=4096"}, "1024", 1024},
		{"default beyond MaxBurstLength", []string{"MaxBurstLength=4096"}, "", 4096},
		{"no unsolicited data at all", []string{"FirstBurstLength=8192", "InitialR2T=Yes", "ImmediateData=No"}, "Irrelevant", 65536},
		{"immediate data only", []string{"FirstBurstLength=8192", "InitialR2T=Yes", "ImmediateData=Yes"}, "8192", 8192},
		{"rejected MaxBurstLength", []string{"MaxBurstLength=1", "FirstBurstLength=16777215"}, "262144", 262144},
	} {
		t.Run(c.name, func(t *testing.T) {
			answers, params := negotiated(t, DefaultConfig(), c.kv...)
			if answers[keyFirstBurstLength] != c.answer || params.FirstBurstLength != c.first {
				t.Errorf("answer %q, result %d; want %q, %d", answers[keyFirstBurstLength], params.FirstBurstLength, c.answer, c.first)
			}
			if params.FirstBurstLength > params.MaxBurstLength {
				t.Error("FirstBurstLength > MaxBurstLength")
			}
		})
	}
}

func TestBooleanTables(t *testing.T) {
	yesNo := map[bool]string{true: "Yes", false: "No"}
	for _, ours := range []bool{false, true} {
		for _, theirs := range []bool{false, true} {
			cfg := DefaultConfig()
			cfg.InitialR2T, cfg.ImmediateData = ours, ours
			answers, params := negotiated(t, cfg, "InitialR2T="+yesNo[theirs], "ImmediateData="+yesNo[theirs])
			if or := ours || theirs; params.InitialR2T != or || answers[keyInitialR2T] != yesNo[or] {
				t.Errorf("InitialR2T %v, %v: %v", ours, theirs, answers)
			}
			if and := ours && theirs; params.ImmediateData != and || answers[keyImmediateData] != yesNo[and] {
				t.Errorf("ImmediateData %v, %v: %v", ours, theirs, answers)
			}
		}
	}
}

func TestDiscoveryKeys(t *testing.T) {
	cfg := DefaultConfig()
	n := newNegotiation(&cfg)
	n.discovery = true
	out, err := n.operational(pairsOf(
		"HeaderDigest=CRC32C", "MaxConnections=1", "InitialR2T=No", "ImmediateData=No", "MaxBurstLength=1024", "FirstBurstLength=1024",
		"MaxOutstandingR2T=1", "DataPDUInOrder=No", "DataSequenceInOrder=No", "DefaultTime2Wait=5", "ErrorRecoveryLevel=0",
		"TaskReporting=RFC3720", "iSCSIProtocolLevel=2",
	))
	if err != nil {
		t.Fatal(err)
	}
	irrelevant := 0
	for _, p := range out {
		if p.Value == answerIrrelevant {
			irrelevant++
		}
	}
	if len(out) != 13 || irrelevant != 10 || out[0].Value != "CRC32C" {
		t.Errorf("%v", out)
	}
	if n.params.MaxBurstLength != Default().MaxBurstLength || !n.params.InitialR2T || n.params.DefaultTime2Wait != 5 {
		t.Errorf("%+v", n.params)
	}
}

func TestJoinedConnectionKeys(t *testing.T) {
	cfg := DefaultConfig()
	n := newNegotiation(&cfg)
	n.joined = true
	out, err := n.operational(pairsOf("MaxBurstLength=1024", "DataDigest=CRC32C", "MaxRecvDataSegmentLength=1024"))
	if err != nil || len(out) != 2 || out[0].Value != answerReject || out[1].Value != "CRC32C" || n.params.InitiatorMaxRecvDataSegmentLength != 1024 {
		t.Errorf("%v, %v", out, err)
	}
}

func TestNoRenegotiation(t *testing.T) {
	for key, use := range keyUses {
		if use&(useTargetOnly|useSecurity|useIdentity) != 0 || key == keySendTargets {
			continue
		}
		for _, lists := range [][][]Pair{
			{pairsOf(key+"=1", key+"=1")},
			{pairsOf(key + "=1"), pairsOf(key + "=No")},
		} {
			cfg := DefaultConfig()
			n := newNegotiation(&cfg)
			var err error
			for _, l := range lists {
				if _, err = n.operational(l); err != nil {
					break
				}
			}
			var se *StatusError
			if !errors.As(err, &se) || se.Status != StatusInitiatorError {
				t.Errorf("%s twice in %d lists: %v", key, len(lists), err)
			}
		}
	}
}

func TestRequiredDigest(t *testing.T) {
	cfg := DefaultConfig()
	cfg.HeaderDigests = []Digest{DigestCRC32C}
	n := newNegotiation(&cfg)
	if out, err := n.operational(pairsOf("HeaderDigest=None")); err != nil || out[0].Value != answerReject {
		t.Errorf("%v, %v", out, err)
	}
	var se *StatusError
	if _, err := n.finish(); !errors.As(err, &se) || se.Status != StatusInitiatorError {
		t.Errorf("a login without the required digest: %v", err)
	}
	if answers, params := negotiated(t, cfg, "HeaderDigest=None,CRC32C"); answers[keyHeaderDigest] != "CRC32C" || params.HeaderDigest != DigestCRC32C {
		t.Errorf("%v", answers)
	}
}

func TestConfigValidate(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(c *Config){
		"no digest":               func(c *Config) { c.HeaderDigests = nil },
		"no task reporting":       func(c *Config) { c.TaskReporting = nil },
		"no connection":           func(c *Config) { c.MaxConnections = 0 },
		"segment too short":       func(c *Config) { c.MaxRecvDataSegmentLength = 511 },
		"burst too long":          func(c *Config) { c.MaxBurstLength = 1 << 24 },
		"first burst beyond":      func(c *Config) { c.FirstBurstLength = c.MaxBurstLength + 1 },
		"wait too long":           func(c *Config) { c.DefaultTime2Wait = 3601 },
		"no R2T":                  func(c *Config) { c.MaxOutstandingR2T = 0 },
		"error recovery level":    func(c *Config) { c.ErrorRecoveryLevel = 3 },
		"no window":               func(c *Config) { c.CommandWindow = 0 },
		"unknown CHAP algorithm":  func(c *Config) { c.CHAPAlgorithms = []CHAPAlgorithm{4} },
		"protocol level too high": func(c *Config) { c.ISCSIProtocolLevel = 32 },
	} {
		c := DefaultConfig()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: valid", name)
		}
	}
}
