package initiator

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Config names a logical unit and how to log in to its target.
type Config struct {
	Portal string // host:port
	Target string // the target's iSCSI name
	LUN    uint16
	Name   string  // the initiator's iSCSI name
	ISID   [6]byte // zero: a random-format ISID made from the name
	// LoginTimeout bounds connecting and logging in; zero means 5 s.
	LoginTimeout time.Duration
	// NoImmediateData makes every write wait for R2T.
	NoImmediateData bool
}

// params are the operational values that a login settled.
type params struct {
	maxSend       int // the target's MaxRecvDataSegmentLength
	maxBurst      int
	firstBurst    int
	immediateData bool
	initialR2T    bool
}

// recvMax is the MaxRecvDataSegmentLength that this initiator declares.
const recvMax = 256 << 10

// loginRoundsMax bounds the exchange of one login.
const loginRoundsMax = 8

// Dial connects and logs in.
func Dial(ctx context.Context, cfg Config) (*Session, error) {
	limit := cfg.LoginTimeout
	if limit == 0 {
		limit = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", cfg.Portal)
	if err != nil {
		return nil, err
	}
	if cfg.ISID == [6]byte{} {
		cfg.ISID = randomISID(cfg.Name)
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	p, statSN, cmdSN, maxCmdSN, err := login(conn, cfg)
	if !stop() || err != nil {
		conn.Close()
		if err == nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("login to %s at %s: %w", cfg.Target, cfg.Portal, err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, err
	}
	return newSession(conn, cfg, p, statSN, cmdSN, maxCmdSN), nil
}

// randomISID is of the random format (RFC 7143 11.12.5, type 10b); the same name gives the same ISID, so
// that a new login reinstates the session of a lost one.
func randomISID(name string) [6]byte {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return [6]byte{0x80, byte(h >> 16), byte(h >> 8), byte(h), 0, 1}
}

// offers are the keys of the first login request, in the operational stage without authentication.
func offers(cfg Config) []byte {
	immediate := "Yes"
	if cfg.NoImmediateData {
		immediate = "No"
	}
	keys := []string{
		"InitiatorName=" + cfg.Name, "TargetName=" + cfg.Target, "SessionType=Normal",
		"AuthMethod=None", "HeaderDigest=None", "DataDigest=None", "ErrorRecoveryLevel=0",
		"InitialR2T=No", "ImmediateData=" + immediate,
		"MaxRecvDataSegmentLength=" + strconv.Itoa(recvMax),
		"MaxBurstLength=1048576", "FirstBurstLength=262144", "MaxOutstandingR2T=1", "MaxConnections=1",
		"DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "DefaultTime2Wait=0", "DefaultTime2Retain=0",
	}
	return []byte(strings.Join(keys, "\x00") + "\x00")
}

// login runs the login phase on a fresh connection. It begins in SecurityNegotiation, where it offers
// AuthMethod=None, and follows the target through the stages.
func login(conn net.Conn, cfg Config) (p params, statSN, cmdSN, maxCmdSN uint32, err error) {
	p = params{maxSend: 8192, maxBurst: 262144, firstBurst: 65536, immediateData: true, initialR2T: true}
	all := offers(cfg)
	split := bytes.Index(all, []byte("HeaderDigest"))
	const security, operational, full = 0, 1, 3
	stage, text := byte(security), all[:split]
	var expStatSN uint32
	for range loginRoundsMax {
		next := byte(operational)
		if stage == operational {
			next = full
		}
		var h bhs
		h[0] = opLogin | immediate
		h[1] = final | stage<<2 | next
		copy(h[8:], cfg.ISID[:])
		h.put32(16, 1)
		h.put32(24, 1)
		h.put32(28, expStatSN)
		h.setDataLen(len(text))
		if _, err = conn.Write(append(h[:], append(text, make([]byte, padded(len(text))-len(text))...)...)); err != nil {
			return p, 0, 0, 0, err
		}
		rsp, data, err := readPDU(conn, 64<<10)
		if err != nil {
			return p, 0, 0, 0, err
		}
		if rsp.opcode() != opLoginRsp {
			return p, 0, 0, 0, fmt.Errorf("opcode 0x%02x during login", rsp.opcode())
		}
		if rsp[36] != 0 {
			return p, 0, 0, 0, &LoginError{Class: rsp[36], Detail: rsp[37]}
		}
		if err := p.take(data); err != nil {
			return p, 0, 0, 0, err
		}
		expStatSN = rsp.get32(24) + 1
		text = nil
		if rsp[1]&final != 0 {
			if stage = rsp[1] & 3; stage == full {
				return p, expStatSN, rsp.get32(28), rsp.get32(32), nil
			}
			text = all[split:]
		}
	}
	return p, 0, 0, 0, fmt.Errorf("login did not end after %d rounds", loginRoundsMax)
}

// take reads the target's answers.
func (p *params) take(data []byte) error {
	for kv := range bytes.SplitSeq(data, []byte{0}) {
		key, value, ok := bytes.Cut(kv, []byte("="))
		if !ok {
			continue
		}
		v := string(value)
		var err error
		switch string(key) {
		case "MaxRecvDataSegmentLength":
			p.maxSend, err = strconv.Atoi(v)
		case "MaxBurstLength":
			p.maxBurst, err = strconv.Atoi(v)
		case "FirstBurstLength":
			p.firstBurst, err = strconv.Atoi(v)
		case "ImmediateData":
			p.immediateData = v == "Yes"
		case "InitialR2T":
			p.initialR2T = v == "Yes"
		}
		if err != nil {
			return fmt.Errorf("answer %q: %w", kv, err)
		}
	}
	if p.maxSend < 512 || p.firstBurst < 512 || p.maxBurst < p.firstBurst {
		return fmt.Errorf("impossible limits: %+v", *p)
	}
	return nil
}

// readPDU reads one PDU whose data segment is at most limit.
func readPDU(r io.Reader, limit int) (bhs, []byte, error) {
	var h bhs
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return h, nil, err
	}
	n := h.dataLen()
	if n > limit {
		return h, nil, fmt.Errorf("data segment of %d bytes (limit %d)", n, limit)
	}
	data := make([]byte, int(h[4])*4+padded(n))
	if _, err := io.ReadFull(r, data); err != nil {
		return h, nil, err
	}
	return h, data[int(h[4])*4:][:n], nil
}
