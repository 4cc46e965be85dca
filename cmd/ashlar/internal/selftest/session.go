package selftest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// sessionChecks are about the iSCSI session.
func sessionChecks() map[string]check {
	return map[string]check{
		"discovery": {
			area: "iSCSI", title: "discovery", want: "SendTargets lists the target with an address",
			advice: "Administrators add the portal and expect the target to appear. Allow this initiator, or discovery without CHAP.", run: discovery,
		},
		"login time": {
			area: "iSCSI", title: "login time", want: "less than 5 s", advice: "ESXi gives up a login after 5 s.", run: loginTime,
		},
		"digests": {
			area: "iSCSI", title: "header and data digests", want: "all combinations log in and read",
			advice: "Hosts may be told to use CRC32C; the target must agree or choose None.", run: digests,
		},
		"initial r2t": {
			area: "iSCSI", title: "InitialR2T and ImmediateData", want: "each combination logs in and reads", advice: "Hosts differ in their defaults.", run: dataModes,
		},
		"erl 0": {
			area: "iSCSI", title: "ErrorRecoveryLevel 0, one connection", want: "accepted", advice: "The host offers nothing else.", run: plainSession,
		},
		"many sessions": {
			area: "iSCSI", title: "sessions of one host", want: "8 sessions with ISIDs of their own work together",
			advice: "Multipath software opens one session for each path.", run: manySessions,
		},
		"relogin": {
			area: "iSCSI", title: "login with an ISID in use", want: "the old session ends, the new one works",
			advice: "A host that lost its connection comes back with its ISID.", run: relogin,
		},
		"ping": {area: "iSCSI", title: "NOP-Out", want: "answered with its data in time", advice: "The host takes the path for dead.", run: ping},
		"window": {
			area: "iSCSI", title: "command window", want: "32 commands or more, 128 for full speed",
			advice: "The queue depth of the host is cut down to the window.", run: window,
		},
		"unknown command": {
			area: "iSCSI", title: "unknown command", want: "05/20/00 at once", advice: "The host waits for its timeout, then resets the device.",
			run: func(p *probe) (string, error) { return p.sense(service(0xff, 0, 0), 0, nil, 5, 0x20) },
		},
		"residual": {
			area: "iSCSI", title: "residual counts", want: "exact", advice: "ESXi fails commands whose residual is wrong.", run: residuals,
		},
		"abort": {
			area: "iSCSI", title: "ABORT TASK", want: "complete, within 1 s", advice: "After four rejected aborts ESXi drops the connection.",
			writes: true, run: abortTask,
		},
		"lun reset": {
			area: "iSCSI", title: "LOGICAL UNIT RESET", want: "complete; then 06/29 for every session",
			advice: "The host does not know that its commands and reservations of the old kind are gone.", writes: true, run: lunReset,
		},
		"start stop": {
			area: "SCSI", title: "START STOP UNIT, start", want: "GOOD; the path stays", advice: "Path software starts units before it uses a path.",
			run: func(p *probe) (string, error) { return "GOOD", p.run([]byte{0x1b, 0, 0, 0, 1, 0}, nil) },
		},
	}
}

func discovery(p *probe) (string, error) {
	found, n, err := p.addresses()
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%d targets, this one is not among them or has no address", n)
	}
	return "at " + strings.Join(found, " "), nil
}

// addresses returns where discovery says that the target is, each HOST:PORT,TAG, and how many targets it names.
func (p *probe) addresses() (found []string, targets int, err error) {
	c, err := wire.Dial(p.ctx, p.o.URL.Portal)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	c.Timeout = p.o.Timeout
	h := wire.NewHost(c, 1)
	if err := h.Login(wire.Login{Initiator: p.o.Initiator, User: p.o.URL.User, Secret: p.o.URL.Secret}); err != nil {
		return nil, 0, fmt.Errorf("discovery login: %w", err)
	}
	itt := h.NextITT()
	if err := h.Request(wire.Text(wire.Final, itt, wire.Reserved, wire.Keys("SendTargets=All"))); err != nil {
		return nil, 0, err
	}
	var text []byte
	for range 1024 {
		r, err := h.Next()
		if err != nil || r.Opcode() != wire.OpTextRsp {
			return nil, 0, fmt.Errorf("opcode %#02x: %w", r.Opcode(), orGood(err))
		}
		text = append(text, r.Data...)
		if r.Flags()&wire.Final != 0 {
			break
		}
		if err := h.Request(wire.Text(wire.Final, itt, r.TTT(), nil)); err != nil {
			return nil, 0, err
		}
	}
	current := ""
	for _, kv := range wire.Pairs(text) {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "TargetName":
			current = v
			targets++
		case "TargetAddress":
			if strings.EqualFold(current, p.o.URL.Target) {
				found = append(found, v)
			}
		}
	}
	return found, targets, nil
}

func loginTime(p *probe) (string, error) {
	d, err := timed(func() error { _, err := p.open(); return err })
	if err == nil && d > 5*time.Second {
		err = fmt.Errorf("%v", d)
	}
	return d.Round(time.Millisecond).String(), err
}

// reads logs in with keys and reads a block.
func (p *probe) reads(change ...string) error {
	h, err := p.open(change...)
	if err != nil {
		return fmt.Errorf("%v: %w", change, err)
	}
	_, err = dataOf(h, rw16(opRead16, 0, 0, 1), p.blockLen)
	if err != nil {
		return fmt.Errorf("%v: %w", change, err)
	}
	return nil
}

func digests(p *probe) (string, error) {
	for _, hd := range []string{"None", "CRC32C"} {
		for _, dd := range []string{"None", "CRC32C"} {
			offer := func(s string) string {
				if s == "None" {
					return s
				}
				return s + ",None"
			}
			if err := p.reads("HeaderDigest="+offer(hd), "DataDigest="+offer(dd)); err != nil {
				return "", err
			}
		}
	}
	return "4 combinations", nil
}

func dataModes(p *probe) (string, error) {
	for _, r := range []string{"Yes", "No"} {
		for _, i := range []string{"Yes", "No"} {
			if err := p.reads("InitialR2T="+r, "ImmediateData="+i); err != nil {
				return "", err
			}
		}
	}
	return "4 combinations", nil
}

func plainSession(p *probe) (string, error) {
	return "accepted", p.reads("ErrorRecoveryLevel=0", "MaxConnections=1", "HeaderDigest=None", "DataDigest=None",
		"DefaultTime2Wait=0", "DefaultTime2Retain=0", "MaxBurstLength=262144", "FirstBurstLength=262144")
}

func manySessions(p *probe) (string, error) {
	seen := map[uint16]bool{}
	for range 8 {
		h, err := p.open()
		if err != nil {
			return "", fmt.Errorf("session %d: %w", len(seen)+1, err)
		}
		seen[h.TSIH] = true
	}
	for i, h := range p.others {
		if err := h.Ready(); err != nil {
			return "", fmt.Errorf("session %d of 8: %w", i+1, err)
		}
	}
	if len(seen) != 8 {
		return "", fmt.Errorf("%d different session handles", len(seen))
	}
	return "8 sessions", nil
}

func relogin(p *probe) (string, error) {
	old, err := p.open()
	if err != nil {
		return "", err
	}
	c, err := wire.Dial(p.ctx, p.o.URL.Portal)
	if err != nil {
		return "", err
	}
	defer c.Close()
	h := wire.NewHost(c, 1)
	h.LUN = p.h.LUN
	if err := h.Login(wire.Login{Initiator: p.o.Initiator, Target: p.o.URL.Target, ISID: old.ISID, User: p.o.URL.User, Secret: p.o.URL.Secret}); err != nil {
		return "", err
	}
	if err := h.Ready(); err != nil {
		return "", err
	}
	for {
		if _, err := old.Recv(); errors.Is(err, wire.ErrHungUp) {
			return "the old session ended", h.Logout()
		} else if err != nil {
			return "", fmt.Errorf("the old session: %w", err)
		}
	}
}

func ping(p *probe) (string, error) {
	d, err := timed(func() error {
		if err := p.h.Request(wire.NopOut(p.h.NextITT(), wire.Reserved, []byte("are you there?"))); err != nil {
			return err
		}
		r, err := p.h.Next()
		if err == nil && (r.Opcode() != wire.OpNopIn || string(r.Data) != "are you there?") {
			err = fmt.Errorf("opcode %#02x with %d bytes", r.Opcode(), len(r.Data))
		}
		return err
	})
	return d.Round(time.Microsecond).String(), err
}

func window(p *probe) (string, error) {
	n := int32(p.h.MaxCmdSN-p.h.CmdSN) + 1
	if n < 32 {
		return "", fmt.Errorf("%d commands", n)
	}
	return fmt.Sprintf("%d commands", n), nil
}

func residuals(p *probe) (string, error) {
	for _, c := range []struct {
		cdb      []byte
		in, want int
	}{
		{[]byte{0x12, 0, 0, 0, 36, 0}, 255, 219},
		{rw16(opRead16, 0, 0, 1), 2 * p.blockLen, p.blockLen},
		{rw16(opRead16, 0, 0, 2), p.blockLen, -p.blockLen},
		{[]byte{opTestUnitReady, 0, 0, 0, 0, 0}, 512, 512},
	} {
		r, err := p.do(c.cdb, c.in, nil)
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return "", err
		}
		if r.Residual != c.want {
			return "", fmt.Errorf("%d for command %02Xh, should be %d", r.Residual, c.cdb[0], c.want)
		}
	}
	return "exact", nil
}

// manage sends a task management function for the logical unit and returns the response.
func manage(h *wire.Host, function byte, ref, refCmdSN uint32) (byte, error) {
	req := wire.TMF(function, h.NextITT(), h.LUN, ref, refCmdSN)
	if err := h.Request(req); err != nil {
		return 0, err
	}
	for range 4096 {
		r, err := h.Next()
		if err != nil {
			return 0, err
		}
		if r.Opcode() == wire.OpTMFRsp && r.ITT() == req.ITT() {
			return r.BHS[2], nil
		}
	}
	return 0, errors.New("no answer among 4096")
}

// abortTask aborts a write that the target waits for data of.
func abortTask(p *probe) (string, error) {
	h, err := p.open("InitialR2T=Yes", "ImmediateData=No")
	if err != nil {
		return "", err
	}
	sn := h.CmdSN
	itt, err := h.Start(rw16(opWrite16, 0, p.at(0), 1), 0, make([]byte, p.blockLen))
	if err != nil {
		return "", err
	}
	if r, err := h.Next(); err != nil || r.Opcode() != wire.OpR2T {
		return "", fmt.Errorf("opcode %#02x where R2T was expected: %w", r.Opcode(), orGood(err))
	}
	var answer byte
	d, err := timed(func() error { answer, err = manage(h, wire.AbortTask, itt, sn); return err })
	switch {
	case err != nil:
		return "", err
	case answer != wire.TMFComplete:
		return "", fmt.Errorf("response %d", answer)
	case d > time.Second:
		return "", fmt.Errorf("complete after %v", d)
	}
	return "complete in " + d.Round(time.Microsecond).String(), h.Ready()
}

func lunReset(p *probe) (string, error) {
	other, err := p.openOther()
	if err != nil {
		other, err = p.open()
	}
	if err != nil {
		return "", err
	}
	answer, err := manage(p.h, wire.LogicalUnitReset, wire.Reserved, 0)
	if err != nil || answer != wire.TMFComplete {
		return "", fmt.Errorf("response %d: %w", answer, orGood(err))
	}
	for i, h := range []*wire.Host{p.h, other} {
		r, err := h.Do(make([]byte, 6), 0, nil)
		if err != nil {
			return "", err
		}
		if r.Sense.Key != 6 || r.Sense.ASC != 0x29 {
			return "", fmt.Errorf("session %d finds %w", i+1, orGood(r.Err()))
		}
	}
	return "complete, 06/29 for both sessions", nil
}

var errGood = errors.New("GOOD")

// orGood gives success a name where it is wrong.
func orGood(err error) error {
	if err == nil {
		return errGood
	}
	return err
}
