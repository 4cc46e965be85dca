package login

import (
	"crypto/rand"
	"errors"
	"io"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// MaxLoginRequests bounds the Login Requests of one login phase.
const MaxLoginRequests = 64

// ErrOver is returned by Receive after the login has succeeded or failed.
var ErrOver = errors.New("login: the login phase is over")

// Login is the login phase of one connection. It is not safe for concurrent use.
//
// Invariants: stage is StageSecurity or StageOperational until over; the identity (names, type, rights) is known
// before any stage sees a key; out is empty whenever a request with text is accepted.
type Login struct {
	cfg  Config
	env  Env
	rand io.Reader

	over     bool
	requests int
	first    pdu.LoginRequest // the first request, without its Data
	stage    pdu.LoginStage
	text     TextReader
	out      *TextWriter // what waits to be sent; limited to MaxTextLen
	statSN   pdu.StatSN  // of the next response

	identified bool
	kind       SessionType
	initiator  string
	target     string
	portal     uint16 // TargetPortalGroupTag
	security   security
	keys       *negotiation
	declared   bool // the target's MaxRecvDataSegmentLength was sent
}

// NewLogin returns the login phase of a connection on which nothing was received. cfg must be valid (Config.Validate).
func NewLogin(cfg Config, env Env) *Login {
	l := &Login{cfg: cfg, env: env, rand: cfg.Rand, out: NewTextWriter(MaxTextLen)}
	if l.rand == nil {
		l.rand = rand.Reader
	}
	l.keys = newNegotiation(&l.cfg)
	return l
}

// Receive takes the next Login Request and returns the response to send. req.Data is not kept; the Data of the
// response belongs to the caller.
//
// When the login succeeds, done is not nil and the response is the final one: full feature phase begins after it. When
// it fails, err is a *StatusError and the response says so: it is to be sent, and the connection closed. Afterwards
// Receive returns ErrOver and no response.
func (l *Login) Receive(req pdu.LoginRequest) (out []pdu.LoginResponse, done *Result, err error) {
	if l.over {
		return nil, nil, ErrOver
	}
	resp, done, err := l.step(&req)
	if err != nil {
		l.over = true
		status := asStatusError(err)
		resp = Reject(&req, status)
		resp.StatSN = l.statSN
		return []pdu.LoginResponse{resp}, nil, status
	}
	l.over = done != nil
	return []pdu.LoginResponse{resp}, done, nil
}

// asStatusError finds the answer to an error: a text error is the initiator's fault, any other is the target's.
func asStatusError(err error) *StatusError {
	var status *StatusError
	var text *TextError
	switch {
	case errors.As(err, &status):
		return status
	case errors.As(err, &text):
		return failf(StatusInitiatorError, "%s", text.Detail)
	}
	return failf(StatusTargetError, "%v", err)
}

func (l *Login) step(req *pdu.LoginRequest) (pdu.LoginResponse, *Result, error) {
	if err := l.checkHeader(req); err != nil {
		return pdu.LoginResponse{}, nil, err
	}
	if l.out.Len() > 0 { // the last response had the C bit: an empty request asks for the rest
		if len(req.Data) != 0 || req.Continue {
			return pdu.LoginResponse{}, nil, failf(StatusInitiatorError, "text before the target's was complete")
		}
		return l.respond(req)
	}
	pairs, err := l.text.Add(req.Data, req.Continue)
	if err != nil {
		return pdu.LoginResponse{}, nil, err
	}
	if req.Continue {
		return l.response(req), nil, nil
	}
	answers, err := l.process(req, pairs)
	if err != nil {
		return pdu.LoginResponse{}, nil, err
	}
	for _, p := range answers {
		if err := l.out.Add(p.Key, p.Value); err != nil {
			return pdu.LoginResponse{}, nil, err
		}
	}
	return l.respond(req)
}

// checkHeader checks the fixed fields against each other and against the first request.
func (l *Login) checkHeader(req *pdu.LoginRequest) error {
	l.requests++
	if l.requests == 1 {
		l.first, l.stage, l.statSN = *req, req.CSG, req.ExpStatSN
		l.first.Data = nil
		l.keys.joined = req.TSIH != 0
	}
	f := &l.first
	switch {
	case l.requests > MaxLoginRequests:
		return failf(StatusInitiatorError, "more than %d requests", MaxLoginRequests)
	case req.VersionMin > pdu.Version:
		return failf(StatusUnsupportedVersion, "version %d to %d", req.VersionMin, req.VersionMax)
	case req.ISID.Type() == pdu.ISIDReserved:
		return failf(StatusInitiatorError, "ISID %v has a reserved format", req.ISID)
	case req.CSG != pdu.StageSecurity && req.CSG != pdu.StageOperational:
		return failf(StatusInitiatorError, "CSG is %v", req.CSG)
	case req.CSG != l.stage:
		return failf(StatusInitiatorError, "CSG is %v in %v", req.CSG, l.stage)
	case req.Transit && req.Continue:
		return failf(StatusInitiatorError, "T and C")
	case req.Transit && (req.NSG <= req.CSG || req.NSG != pdu.StageOperational && req.NSG != pdu.StageFullFeature):
		return failf(StatusInitiatorError, "from %v to %v", req.CSG, req.NSG)
	case req.ISID != f.ISID || req.TSIH != f.TSIH || req.CID != f.CID || req.ITT != f.ITT:
		return failf(StatusInitiatorError, "ISID, TSIH, CID or ITT changed")
	case req.VersionMin != f.VersionMin || req.VersionMax != f.VersionMax:
		return failf(StatusInitiatorError, "the version changed")
	}
	return nil
}

// process gives a complete list to the stage that it is for and returns the answers.
func (l *Login) process(req *pdu.LoginRequest, pairs []Pair) ([]Pair, error) {
	var out []Pair
	if !l.identified {
		greeting, rest, err := l.identify(pairs)
		if err != nil {
			return nil, err
		}
		out, pairs = greeting, rest
		if l.stage == pdu.StageOperational {
			if err := l.security.withoutMethod(); err != nil {
				return nil, err
			}
		}
	}
	stage := l.processSecurity
	if l.stage == pdu.StageOperational {
		stage = l.processOperational
	}
	answers, err := stage(req, pairs)
	if err != nil {
		return nil, err
	}
	return append(out, answers...), nil
}

// processSecurity separates the security keys from others, of which only declarations are taken in this stage.
func (l *Login) processSecurity(req *pdu.LoginRequest, pairs []Pair) ([]Pair, error) {
	var out []Pair
	keys := securityKeys{}
	for _, p := range pairs {
		switch use := keyUses[p.Key]; {
		case use&useSecurity != 0:
			if err := l.keys.once(p.Key); err != nil {
				return nil, err
			}
			keys[p.Key] = p.Value
		case use&useOperational != 0:
			out = append(out, Pair{p.Key, answerReject})
		default:
			answer, err := l.keys.answer(p)
			if err != nil {
				return nil, err
			}
			if answer != "" {
				out = append(out, Pair{p.Key, answer})
			}
		}
	}
	answers, err := l.security.receive(keys, req.Transit)
	if err != nil {
		return nil, err
	}
	return append(out, answers...), nil
}

func (l *Login) processOperational(_ *pdu.LoginRequest, pairs []Pair) ([]Pair, error) {
	out, err := l.keys.operational(pairs)
	if err != nil {
		return nil, err
	}
	if !l.declared {
		l.declared = true
		l.keys.params.TargetMaxRecvDataSegmentLength = l.cfg.MaxRecvDataSegmentLength
		out = append(out, Pair{keyMaxRecvDataSegmentLength, formatUint(l.cfg.MaxRecvDataSegmentLength)})
	}
	return out, nil
}

// respond sends the next piece of what waits, and moves to the next stage when all is sent and both sides want to.
func (l *Login) respond(req *pdu.LoginRequest) (pdu.LoginResponse, *Result, error) {
	resp := l.response(req)
	size := min(DefaultMaxRecvDataSegmentLength, l.keys.params.InitiatorMaxRecvDataSegmentLength)
	resp.Data, resp.Continue = l.out.Next(int(size))
	if resp.Continue || !req.Transit || l.stage == pdu.StageSecurity && l.security.step != authDone {
		return resp, nil, nil
	}
	resp.Transit, resp.NSG = true, req.NSG
	l.stage = req.NSG
	if l.stage != pdu.StageFullFeature {
		return resp, nil, nil
	}
	done, err := l.admit()
	if err != nil {
		return pdu.LoginResponse{}, nil, err
	}
	resp.TSIH, resp.ExpCmdSN, resp.MaxCmdSN = done.TSIH, done.ExpCmdSN, done.MaxCmdSN
	return resp, done, nil
}

// response returns a response with the fields that all have, and counts it.
func (l *Login) response(req *pdu.LoginRequest) pdu.LoginResponse {
	resp := pdu.LoginResponse{CSG: req.CSG, ISID: req.ISID, TSIH: req.TSIH, ITT: req.ITT}
	resp.StatSN = l.statSN
	resp.ExpCmdSN = l.first.CmdSN
	resp.MaxCmdSN = l.first.CmdSN.Add(l.cfg.CommandWindow - 1)
	l.statSN = l.statSN.Next()
	return resp
}

// admit asks for the session and makes the result.
func (l *Login) admit() (*Result, error) {
	params, err := l.keys.finish()
	if err != nil {
		return nil, err
	}
	f := &l.first
	grant, err := l.env.Admit(Admission{
		Type: l.kind, InitiatorName: l.initiator, TargetName: l.target, PortalGroupTag: l.portal,
		ISID: f.ISID, TSIH: f.TSIH, CID: f.CID, CmdSN: f.CmdSN, Params: params,
	})
	if err != nil {
		return nil, err
	}
	if grant.TSIH == 0 || f.TSIH != 0 && grant.TSIH != f.TSIH {
		return nil, failf(StatusTargetError, "TSIH %d granted for %d", grant.TSIH, f.TSIH)
	}
	r := &Result{
		Type: l.kind, InitiatorName: l.initiator, InitiatorAlias: l.keys.alias, TargetName: l.target,
		PortalGroupTag: l.portal, User: l.security.user, Proof: l.security.proof, ISID: f.ISID, TSIH: grant.TSIH, CID: f.CID,
		Leading: f.TSIH == 0, Params: params, StatSN: l.statSN,
		ExpCmdSN: f.CmdSN, MaxCmdSN: f.CmdSN.Add(l.cfg.CommandWindow - 1),
	}
	if !r.Leading {
		r.ExpCmdSN, r.MaxCmdSN = grant.ExpCmdSN, grant.MaxCmdSN
	}
	return r, nil
}
