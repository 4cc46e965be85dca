package login

import (
	"errors"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// MaxSendTargetsLen bounds the answer to SendTargets, in bytes: some thousands of targets. It leaves in pieces of the
// initiator's MaxRecvDataSegmentLength.
const MaxSendTargetsLen = 1 << 20

// valueAll is the value of SendTargets that asks for all targets.
const valueAll = "All"

// TargetRecord is a target as SendTargets reports it.
type TargetRecord struct {
	Name string
	// Addresses are as TargetAddress wants them, with the portal group tag: "10.0.0.1:3260,1".
	Addresses []string
	// Auth is what the target asks of the initiator.
	Auth Auth
}

// TargetLister tells which targets an initiator may see. It answers at once from memory.
type TargetLister interface {
	// Targets returns the target of that name, or all if name is empty, as far as initiator may see them.
	Targets(initiator, name string) []TargetRecord
}

// Exchange is the text negotiation of one connection in full feature phase, RFC 7143 sections 6.4 and 11.10: one
// exchange at a time, any number one after the other. It is not safe for concurrent use.
type Exchange struct {
	lister    TargetLister
	kind      SessionType
	initiator string
	target    string
	proof     Proof
	sendMax   int // the initiator's MaxRecvDataSegmentLength

	active bool
	itt    pdu.ITT
	ttt    pdu.TTT // of the last response; reserved if nothing is expected
	text   TextReader
	keys   *negotiation
	out    *TextWriter
	omit   int
}

// NewExchange returns the text negotiation that follows the login r.
func NewExchange(r *Result, lister TargetLister) *Exchange {
	return &Exchange{
		lister: lister, kind: r.Type, initiator: r.InitiatorName, target: r.TargetName, proof: r.Proof,
		sendMax: int(r.Params.InitiatorMaxRecvDataSegmentLength), ttt: pdu.ReservedTag,
	}
}

// TextReply is the outcome of a Text Request.
type TextReply struct {
	// Response is complete but for its TargetSNs. Its Data belongs to the caller.
	Response pdu.TextResponse
	// InitiatorMaxRecvDataSegmentLength is the value that the exchange declared, from now on valid; 0 if none.
	InitiatorMaxRecvDataSegmentLength uint32
	// Omitted is how many targets did not fit MaxSendTargetsLen and were left out.
	Omitted int
}

// Receive takes the next Text Request. ttt is a tag that is not in use on the session; the response has it if it
// expects another request. req.Data is not kept. An error is a *pdu.FormatError to be answered with a Reject; the
// exchange is then over.
func (x *Exchange) Receive(req *pdu.TextRequest, ttt pdu.TTT) (TextReply, error) {
	reply, err := x.step(req, ttt)
	if err == nil {
		return reply, nil
	}
	x.reset()
	var format *pdu.FormatError
	if errors.As(err, &format) {
		return TextReply{}, format
	}
	return TextReply{}, &pdu.FormatError{Reason: pdu.RejectProtocolError, Detail: err.Error()}
}

func (x *Exchange) reset() {
	x.active, x.ttt = false, pdu.ReservedTag
	x.text, x.keys, x.out, x.omit = TextReader{}, nil, nil, 0
}

func (x *Exchange) step(req *pdu.TextRequest, ttt pdu.TTT) (TextReply, error) {
	if req.TTT.IsReserved() { // a new exchange, whatever was before
		x.reset()
		x.active, x.itt = true, req.ITT
		x.keys, x.out = newNegotiation(&Config{}), NewTextWriter(MaxSendTargetsLen)
		x.keys.params.InitiatorMaxRecvDataSegmentLength = 0 // nothing declared yet
	} else if !x.active || req.TTT != x.ttt || req.ITT != x.itt {
		return TextReply{}, &pdu.FormatError{Reason: pdu.RejectInvalidPDUField, Detail: "Text Request with a TTT or ITT that is not expected"}
	}
	switch {
	case req.Final && req.Continue:
		return TextReply{}, textErrorf("F and C")
	case x.out.Len() > 0:
		if len(req.Data) != 0 || req.Continue {
			return TextReply{}, textErrorf("text before the target's was complete")
		}
	default:
		pairs, err := x.text.Add(req.Data, req.Continue)
		if err != nil {
			return TextReply{}, err
		}
		if err := x.answer(pairs); err != nil {
			return TextReply{}, err
		}
	}
	return x.respond(req, ttt), nil
}

func (x *Exchange) respond(req *pdu.TextRequest, ttt pdu.TTT) TextReply {
	r := TextReply{Response: pdu.TextResponse{LUN: req.LUN, ITT: req.ITT, TTT: ttt}, Omitted: x.omit}
	x.omit = 0
	r.Response.Data, r.Response.Continue = x.out.Next(x.sendMax)
	x.ttt = ttt
	if req.Final && !r.Response.Continue {
		r.Response.Final, r.Response.TTT = true, pdu.ReservedTag
		if n := x.keys.params.InitiatorMaxRecvDataSegmentLength; n != 0 {
			r.InitiatorMaxRecvDataSegmentLength, x.sendMax = n, int(n)
		}
		x.reset()
	}
	return r
}

// answer answers the pairs of a complete list. In this phase little can be negotiated; what can not is rejected.
func (x *Exchange) answer(pairs []Pair) error {
	for _, p := range pairs {
		use, known := keyUses[p.Key]
		answer := answerReject
		switch {
		case !known:
			answer = answerNotUnderstood
		case use&useFullFeature != 0:
			if err := x.keys.once(p.Key); err != nil {
				return err
			}
			if p.Key == keySendTargets {
				if x.sendTargets(p.Value) {
					continue
				}
			} else if answer = x.keys.declared(p); answer == "" {
				continue
			}
		case use&useTargetOnly != 0 && isAnswer(p.Value):
			continue
		}
		if err := x.out.Add(p.Key, answer); err != nil {
			return err
		}
	}
	return nil
}

// sendTargets answers SendTargets, RFC 7143 appendix C: All in a discovery session, nothing (the session's own target)
// in a normal one, and a target's name in both. A discovery session hears only of targets that take what its login has
// proven. It returns false if the value is to be rejected.
func (x *Exchange) sendTargets(value string) bool {
	name := ""
	switch {
	case value == valueAll && x.kind == SessionDiscovery:
	case value == "" && x.kind == SessionNormal:
		name = x.target
	case value == "" || value == valueAll:
		return false
	default:
		var ok bool
		if name, ok = NormalizeName(value); !ok {
			return false
		}
		if x.kind == SessionNormal && name != x.target {
			return true // nothing is known here about others
		}
	}
	for _, t := range x.lister.Targets(x.initiator, name) {
		if x.kind == SessionDiscovery && !x.proof.Satisfies(t.Auth) {
			continue
		}
		if !x.addTarget(t) {
			x.omit++
		}
	}
	return true
}

// addTarget adds all pairs of a target, or none if they do not fit; MaxTextLen stays free for the answers to other
// keys.
func (x *Exchange) addTarget(t TargetRecord) bool {
	n := len(keyTargetName) + len(t.Name) + 2
	for _, a := range t.Addresses {
		n += len(keyTargetAddress) + len(a) + 2
	}
	if x.out.Len()+n > MaxSendTargetsLen-MaxTextLen {
		return false
	}
	x.out.mustAdd(keyTargetName, t.Name)
	for _, a := range t.Addresses {
		x.out.mustAdd(keyTargetAddress, a)
	}
	return true
}
