package wire

import (
	"errors"
	"fmt"
)

// Result is how a SCSI command ended.
type Result struct {
	Status byte
	Sense  Sense
	Data   []byte // data-in, as long as what came
	// Residual is the residual count, negative for an overflow.
	Residual int
	Response PDU // the PDU that carried the status
}

// Err returns nil for GOOD and CONDITION MET, else a *StatusError.
func (r *Result) Err() error {
	if r.Status == Good || r.Status == ConditionMet {
		return nil
	}
	return &StatusError{r.Status, r.Sense}
}

// StatusError is a command that ended with another status than GOOD.
type StatusError struct {
	Status byte
	Sense  Sense
}

func (e *StatusError) Error() string {
	if e.Status == CheckCondition {
		return "check condition " + e.Sense.String()
	}
	return fmt.Sprintf("SCSI status %#02x", e.Status)
}

// ErrRejected says that the target answered a request with a Reject.
var ErrRejected = errors.New("rejected")

// Do runs one command: in is the length of data that is expected, out the data that is sent; one of them is nothing. It
// sends immediate and unsolicited data as negotiated and answers R2Ts. The error is of the connection or the protocol; a
// status is in the result.
func (h *Host) Do(cdb []byte, in int, out []byte) (Result, error) {
	itt, err := h.Start(cdb, in, out)
	if err != nil {
		return Result{}, err
	}
	return h.Finish(itt, out)
}

// Start sends a command with its unsolicited data.
func (h *Host) Start(cdb []byte, in int, out []byte) (itt uint32, err error) {
	itt = h.NextITT()
	flags, length := byte(0), in
	if in > 0 {
		flags = Read
	}
	if len(out) > 0 {
		flags, length = Write, len(out)
	}
	first := min(len(out), h.FirstBurst)
	now := 0
	if h.ImmediateData {
		now = min(first, h.MaxSend)
	}
	more := !h.InitialR2T && first > now
	if !more {
		flags |= Final
	}
	ps := []PDU{Command(flags, itt, h.LUN, uint32(length), cdb, out[:now])}
	if more {
		ps = append(ps, h.burst(itt, Reserved, out, now, first)...)
	}
	return itt, h.Request(ps...)
}

// burst cuts out[from:to] into one sequence of Data-Out.
func (h *Host) burst(itt, ttt uint32, out []byte, from, to int) []PDU {
	var ps []PDU
	for sn := uint32(0); from < to; sn++ {
		n := min(to-from, h.MaxSend)
		flags := byte(0)
		if from+n == to {
			flags = Final
		}
		ps = append(ps, DataOut(flags, itt, ttt, h.LUN, sn, uint32(from), out[from:from+n]))
		from += n
	}
	return ps
}

// Finish waits for the end of the command itt, and gives it the data that the target asks for.
func (h *Host) Finish(itt uint32, out []byte) (Result, error) {
	var r Result
	for {
		p, err := h.Next()
		if err != nil {
			return r, err
		}
		if p.Opcode() == OpReject {
			return r, fmt.Errorf("%w with reason %#02x", ErrRejected, p.BHS[2])
		}
		if p.ITT() != itt {
			return r, fmt.Errorf("opcode %#02x for tag %#x while %#x was waited for", p.Opcode(), p.ITT(), itt)
		}
		switch p.Opcode() {
		case OpDataIn:
			if at := int(p.U32(40)); at != len(r.Data) {
				return r, fmt.Errorf("data-in at offset %d after %d bytes", at, len(r.Data))
			}
			r.Data = append(r.Data, p.Data...)
			if p.Flags()&HasStatus == 0 {
				continue
			}
		case OpR2T:
			if err := h.AnswerR2T(&p, out); err != nil {
				return r, err
			}
			continue
		case OpResponse:
			if p.BHS[2] != 0 {
				return r, fmt.Errorf("response %#02x: not completed by the target", p.BHS[2])
			}
			r.Sense = ParseSense(p.Data)
		default:
			return r, fmt.Errorf("opcode %#02x for a command", p.Opcode())
		}
		r.Status, r.Response = p.BHS[3], p
		r.Residual = residual(&p)
		return r, nil
	}
}

// residual reads the residual count of a response.
func residual(p *PDU) int {
	n := int(p.U32(44))
	switch {
	case p.Flags()&Underflow != 0:
		return n
	case p.Flags()&Overflow != 0:
		return -n
	}
	return 0
}

// AnswerR2T sends what an R2T asks for.
func (h *Host) AnswerR2T(p *PDU, out []byte) error {
	off, n := int(p.U32(40)), int(p.U32(44))
	if off+n > len(out) || n == 0 {
		return fmt.Errorf("r2t for %d bytes at %d of %d", n, off, len(out))
	}
	if n > h.MaxBurst {
		return fmt.Errorf("r2t for %d bytes, MaxBurstLength is %d", n, h.MaxBurst)
	}
	return h.Request(h.burst(p.ITT(), p.TTT(), out, off, off+n)...)
}

// readyMax bounds the unit attentions that Ready takes.
const readyMax = 16

// Ready sends TEST UNIT READY until the unit attentions of a new session are gone.
func (h *Host) Ready() error {
	for range readyMax {
		r, err := h.Do(make([]byte, 6), 0, nil)
		if err != nil {
			return err
		}
		if err = r.Err(); err == nil {
			return nil
		}
		if r.Sense.Key != 6 {
			return err
		}
	}
	return fmt.Errorf("unit attentions without end")
}
