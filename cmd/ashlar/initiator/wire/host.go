package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Stages of a login (RFC 7143 section 11.12.3).
const (
	Security    = 0
	Operational = 1
	FullFeature = 3
)

// Login says how to log in.
type Login struct {
	Initiator string
	Target    string // empty: a discovery session
	ISID      [6]byte
	TSIH      uint16
	CID       uint16
	// Keys are offered beside the names, in the operational stage, instead of the usual ones if not nil.
	Keys []string
	// User and Secret, if not empty, offer CHAP. MutualSecret, if not empty, has the target prove itself.
	User, Secret, MutualSecret string
	// CHAP is the algorithm; 0 is MD5. Base64 has the response sent in base64.
	CHAP   int
	Base64 bool
}

// UsualKeys are what Login.Keys defaults to: large bursts, unsolicited and immediate data, no digests.
func UsualKeys() []string {
	return []string{
		"HeaderDigest=None", "DataDigest=None", "ErrorRecoveryLevel=0", "InitialR2T=No", "ImmediateData=Yes",
		"MaxRecvDataSegmentLength=262144", "MaxBurstLength=262144", "FirstBurstLength=65536", "MaxOutstandingR2T=1",
		"MaxConnections=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "DefaultTime2Wait=2", "DefaultTime2Retain=0",
	}
}

// WithKeys are the usual keys, some of them with other values, and others behind them.
func WithKeys(change ...string) []string {
	out := UsualKeys()
	for _, c := range change {
		k, _, _ := strings.Cut(c, "=")
		i := slices.IndexFunc(out, func(s string) bool { return strings.HasPrefix(s, k+"=") })
		if i < 0 {
			out = append(out, c)
		} else {
			out[i] = c
		}
	}
	return out
}

// LoginError is a login that the target refused (RFC 7143 section 11.13.5).
type LoginError struct {
	Class, Detail byte
	Text          []byte
}

func (e *LoginError) Error() string {
	return fmt.Sprintf("login refused with status %02x%02x", e.Class, e.Detail)
}

// Host is a connection with the state of an initiator: sequence numbers, tags, and what was negotiated.
type Host struct {
	*Conn
	CmdSN     uint32 // of the next command that is not immediate
	ExpStatSN uint32
	MaxCmdSN  uint32 // the largest one that was heard
	ISID      [6]byte
	TSIH, CID uint16
	LUN       uint64 // of commands

	// Answers are what the target answered in all login responses, and declared.
	Answers []byte
	// Of the negotiation: bytes, and whether unsolicited data may be sent.
	MaxSend, MaxBurst, FirstBurst int
	ImmediateData, InitialR2T     bool

	itt uint32
}

// NewHost returns a host on a fresh connection. Its first CmdSN is sn.
func NewHost(c *Conn, sn uint32) *Host {
	return &Host{
		Conn: c, CmdSN: sn, MaxCmdSN: sn, ISID: [6]byte{0x80, 1, 2, 3, 0, 1},
		MaxSend: 8192, MaxBurst: 262144, FirstBurst: 65536, ImmediateData: true, InitialR2T: true,
	}
}

// Open connects and logs in.
func Open(ctx context.Context, portal string, l Login) (*Host, error) {
	c, err := Dial(ctx, portal)
	if err != nil {
		return nil, err
	}
	h := NewHost(c, 1)
	if err := h.Login(l); err != nil {
		c.Close()
		return nil, err
	}
	return h, nil
}

// NextITT returns a fresh initiator task tag.
func (h *Host) NextITT() uint32 {
	h.itt++
	if h.itt == Reserved {
		h.itt = 1
	}
	return h.itt
}

// Stamp fills CmdSN and ExpStatSN in. A request that is not immediate takes the next CmdSN.
func (h *Host) Stamp(p *PDU) {
	switch op := p.Opcode(); op {
	case OpDataOut, OpSNACK:
		p.Put32(28, h.ExpStatSN)
	default:
		p.Put32(24, h.CmdSN)
		p.Put32(28, h.ExpStatSN)
		if p.BHS[0]&Immediate == 0 {
			h.CmdSN++
		}
	}
}

// Request stamps PDUs and sends them in one piece.
func (h *Host) Request(ps ...PDU) error {
	for i := range ps {
		h.Stamp(&ps[i])
	}
	return h.Send(ps...)
}

// Next waits for a PDU, answers pings of the target, and keeps the sequence numbers.
func (h *Host) Next() (PDU, error) { return h.NextWithin(h.Timeout) }

// NextWithin is Next with a limit.
func (h *Host) NextWithin(d time.Duration) (PDU, error) {
	until := time.Now().Add(d)
	for {
		p, err := h.RecvWithin(time.Until(until))
		if err != nil {
			return p, err
		}
		h.saw(&p)
		if p.Opcode() != OpNopIn || p.ITT() != Reserved {
			return p, nil
		}
		if p.TTT() != Reserved {
			pong := NopOut(Reserved, p.TTT(), nil)
			pong.BHS[0] |= Immediate
			copy(pong.BHS[8:16], p.BHS[8:16])
			if err := h.Request(pong); err != nil {
				return p, err
			}
		}
	}
}

// saw takes the sequence numbers of a PDU.
func (h *Host) saw(p *PDU) {
	hasStatSN := true
	switch p.Opcode() {
	case OpR2T:
		hasStatSN = false
	case OpDataIn:
		hasStatSN = p.Flags()&HasStatus != 0
	case OpNopIn:
		hasStatSN = p.ITT() != Reserved
	}
	if hasStatSN {
		h.ExpStatSN = p.StatSN() + 1
	}
	if int32(p.MaxCmdSN()-h.MaxCmdSN) > 0 {
		h.MaxCmdSN = p.MaxCmdSN()
	}
}

// LoginPDU returns a Login Request (RFC 7143 section 11.12) with the host's names and numbers.
func (h *Host) LoginPDU(flags, csg, nsg byte, text []byte) PDU {
	p := New(OpLogin|Immediate, flags|csg<<2|nsg, 0)
	copy(p.BHS[8:], h.ISID[:])
	binary.BigEndian.PutUint16(p.BHS[14:], h.TSIH)
	binary.BigEndian.PutUint16(p.BHS[20:], h.CID)
	p.Put32(24, h.CmdSN)
	p.Put32(28, h.ExpStatSN)
	p.Data = text
	return p
}

// Step sends a Login Request and returns the answer. A refusal is a *LoginError.
func (h *Host) Step(flags, csg, nsg byte, pairs ...string) (PDU, error) {
	return h.StepPDU(h.LoginPDU(flags, csg, nsg, Keys(pairs...)))
}

// StepPDU is Step with a PDU of the caller's.
func (h *Host) StepPDU(p PDU) (PDU, error) {
	if err := h.Send(p); err != nil {
		return PDU{}, err
	}
	r, err := h.Recv()
	if err != nil {
		return r, err
	}
	if r.Opcode() != OpLoginRsp {
		return r, fmt.Errorf("opcode %#02x where a Login Response was expected", r.Opcode())
	}
	if r.BHS[36] != 0 {
		return r, &LoginError{r.BHS[36], r.BHS[37], r.Data}
	}
	h.saw(&r)
	h.Answers = append(h.Answers, r.Data...)
	if r.Flags()&Final != 0 && r.Flags()&3 == FullFeature {
		h.TSIH = binary.BigEndian.Uint16(r.BHS[14:])
	}
	return r, h.take(r.Data)
}

// take keeps what the target answered.
func (h *Host) take(text []byte) error {
	for _, p := range Pairs(text) {
		k, v, _ := strings.Cut(p, "=")
		var err error
		switch k {
		case "MaxRecvDataSegmentLength":
			h.MaxSend, err = number(v, h.MaxSend)
		case "MaxBurstLength":
			h.MaxBurst, err = number(v, h.MaxBurst)
		case "FirstBurstLength":
			h.FirstBurst, err = number(v, h.FirstBurst)
		case "ImmediateData":
			h.ImmediateData = v == "Yes"
		case "InitialR2T":
			h.InitialR2T = v == "Yes"
		}
		if err != nil {
			return fmt.Errorf("answer %q: %w", p, err)
		}
	}
	return nil
}

// number reads an answer that may also be a refusal, which leaves was as it is.
func number(s string, was int) (int, error) {
	switch s {
	case "Irrelevant", "Reject", "NotUnderstood":
		return was, nil
	}
	return strconv.Atoi(s)
}

// Names are the pairs that begin every login.
func (l *Login) Names() []string {
	out := []string{"InitiatorName=" + l.Initiator}
	if l.Target == "" {
		return append(out, "SessionType=Discovery")
	}
	return append(out, "SessionType=Normal", "TargetName="+l.Target)
}

// Login runs a whole login and switches digests on that were negotiated.
func (h *Host) Login(l Login) error {
	if l.ISID != [6]byte{} {
		h.ISID = l.ISID
	}
	h.TSIH, h.CID = l.TSIH, l.CID
	if err := h.Authenticate(l); err != nil {
		return err
	}
	keys := l.Keys
	if keys == nil {
		keys = UsualKeys()
	}
	if l.Target == "" && l.Keys == nil {
		keys = []string{"MaxRecvDataSegmentLength=262144"}
	}
	return h.Negotiate(keys)
}

// Negotiate runs the operational stage up to the full feature phase.
func (h *Host) Negotiate(keys []string) error {
	for range loginRoundsMax {
		r, err := h.Step(Final, Operational, FullFeature, keys...)
		if err != nil {
			return err
		}
		if r.Flags()&Final != 0 && r.Flags()&3 == FullFeature {
			h.SwitchDigests()
			return nil
		}
		keys = nil
	}
	return fmt.Errorf("login did not end after %d rounds", loginRoundsMax)
}

// SwitchDigests has the connection use what the answers say.
func (h *Host) SwitchDigests() {
	v, _ := Lookup(h.Answers, "HeaderDigest")
	h.HeaderDigest = v == "CRC32C"
	v, _ = Lookup(h.Answers, "DataDigest")
	h.DataDigest = v == "CRC32C"
}

// loginRoundsMax bounds the rounds of one stage.
const loginRoundsMax = 16

// Authenticate runs the security stage: with CHAP if l has a secret, else AuthMethod=None.
func (h *Host) Authenticate(l Login) error {
	if l.Secret == "" {
		r, err := h.Step(Final, Security, Operational, append(l.Names(), "AuthMethod=None")...)
		if err == nil && r.Flags()&Final == 0 {
			err = errors.New("the target stays in the security stage although AuthMethod is None")
		}
		return err
	}
	algorithm := l.CHAP
	if algorithm == 0 {
		algorithm = CHAPMD5
	}
	r, err := h.Step(0, Security, Operational, append(l.Names(), "AuthMethod=CHAP")...)
	if err != nil {
		return err
	}
	if v, _ := Lookup(r.Data, "AuthMethod"); v != "CHAP" {
		return fmt.Errorf("AuthMethod=%q where CHAP was offered", v)
	}
	if r, err = h.Step(0, Security, Operational, "CHAP_A="+strconv.Itoa(algorithm)); err != nil {
		return err
	}
	id, challenge, err := Challenge(r.Data)
	if err != nil {
		return err
	}
	encode := Hex
	if l.Base64 {
		encode = Base64
	}
	pairs := []string{"CHAP_N=" + l.User, "CHAP_R=" + encode(CHAPResponse(algorithm, id, l.Secret, challenge))}
	if l.MutualSecret != "" {
		pairs = append(pairs, "CHAP_I=7", "CHAP_C="+encode(mutualChallenge()))
	}
	if r, err = h.Step(Final, Security, Operational, pairs...); err != nil || l.MutualSecret == "" {
		return err
	}
	v, _ := Lookup(r.Data, "CHAP_R")
	got, err := Binary(v)
	if err != nil || string(got) != string(CHAPResponse(algorithm, 7, l.MutualSecret, mutualChallenge())) {
		return fmt.Errorf("the target did not prove itself: CHAP_R=%q", v)
	}
	return nil
}

// mutualChallenge is the challenge for the target, the same each time: this initiator guards nothing.
func mutualChallenge() []byte { return []byte("0123456789abcdef") }

// Challenge reads CHAP_I and CHAP_C.
func Challenge(text []byte) (id byte, challenge []byte, err error) {
	v, _ := Lookup(text, "CHAP_I")
	n, err := strconv.ParseUint(v, 0, 8)
	if err != nil {
		return 0, nil, fmt.Errorf("CHAP_I=%q: %w", v, err)
	}
	v, _ = Lookup(text, "CHAP_C")
	challenge, err = Binary(v)
	return byte(n), challenge, err
}

// Logout ends the session and waits for the target to close the connection.
func (h *Host) Logout() error {
	if err := h.Request(Logout(LogoutSession, h.NextITT(), h.CID)); err != nil {
		return err
	}
	p, err := h.Next()
	if err != nil {
		return err
	}
	if p.Opcode() != OpLogoutRsp || p.BHS[2] != 0 {
		return fmt.Errorf("opcode %#02x, response %d to a logout", p.Opcode(), p.BHS[2])
	}
	defer h.Close()
	if _, err = h.Recv(); !errors.Is(err, ErrHungUp) {
		return fmt.Errorf("the connection is not closed after the logout: %w", err)
	}
	return nil
}
