package login

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// negotiation holds the operational parameters of one login while they are negotiated. Each key may be sent once.
type negotiation struct {
	cfg       *Config
	discovery bool // Irrelevant for what only a normal session has
	joined    bool // a connection more of a session: Reject for what only the first may negotiate
	params    Params
	alias     string          // InitiatorAlias
	seen      map[string]bool // the understood keys that the initiator sent; at most len(keyUses)
}

func newNegotiation(cfg *Config) *negotiation {
	return &negotiation{cfg: cfg, params: Default(), seen: map[string]bool{}}
}

// once records that a key was sent and refuses it the second time, RFC 7143 section 6.3.
func (n *negotiation) once(key string) error {
	if n.seen[key] {
		return failf(StatusInitiatorError, "%s is sent more than once", key)
	}
	n.seen[key] = true
	return nil
}

// operational answers the pairs of one list in LoginOperationalNegotiation. The errors are *StatusError.
func (n *negotiation) operational(pairs []Pair) ([]Pair, error) {
	out := make([]Pair, 0, len(pairs)+1)
	firstBurst, offered := -1, ""
	for _, p := range pairs {
		answer, err := n.answer(p)
		if err != nil {
			return nil, err
		}
		if answer == answerFirstBurst {
			firstBurst, offered = len(out), p.Value
		}
		if answer != "" {
			out = append(out, Pair{p.Key, answer})
		}
	}
	// It depends on three other keys, which may come later in the same list.
	if firstBurst >= 0 {
		out[firstBurst].Value = n.firstBurst(offered)
	}
	return out, nil
}

// answerFirstBurst stands for an answer that is computed when the whole list is known.
const answerFirstBurst = "\x00"

// answer returns the value to answer a pair with, empty for none.
func (n *negotiation) answer(p Pair) (string, error) {
	use, known := keyUses[p.Key]
	if !known {
		return answerNotUnderstood, nil
	}
	if use&useTargetOnly != 0 {
		if isAnswer(p.Value) { // to what the target declared
			return "", nil
		}
		return answerReject, nil
	}
	if use&useSecurity != 0 || p.Key == keySendTargets {
		return answerReject, nil
	}
	if err := n.once(p.Key); err != nil {
		return "", err
	}
	switch {
	case use&useIdentity != 0:
		return "", failf(StatusInitiatorError, "%s after the first request", p.Key)
	case use&useFullFeature != 0:
		// A Reject of a declaration would stand beside the target's own one of the same key.
		if answer := n.declared(p); answer != "" {
			return "", failf(StatusInitiatorError, "%s=%q", p.Key, p.Value)
		}
		return "", nil
	case n.discovery && use&useNormal != 0:
		return answerIrrelevant, nil
	case n.joined && use&useLeading != 0:
		return answerReject, nil
	}
	return n.negotiate(p), nil
}

// declared takes a declaration, which has an answer only if it is wrong.
func (n *negotiation) declared(p Pair) string {
	switch p.Key {
	case keyInitiatorAlias:
		n.alias = p.Value
	case keyMaxRecvDataSegmentLength:
		v, ok := parseNumber(p.Value, lengthMin, lengthMax)
		if !ok {
			return answerReject
		}
		n.params.InitiatorMaxRecvDataSegmentLength = uint32(v)
	}
	return ""
}

// negotiate applies the result function of an operational key and returns the answer.
func (n *negotiation) negotiate(p Pair) string {
	c, r := n.cfg, &n.params
	switch v := p.Value; p.Key {
	case keyHeaderDigest:
		return list(v, c.HeaderDigests, &r.HeaderDigest)
	case keyDataDigest:
		return list(v, c.DataDigests, &r.DataDigest)
	case keyTaskReporting:
		return list(v, c.TaskReporting, &r.TaskReporting)
	case keyInitialR2T:
		return either(v, c.InitialR2T, &r.InitialR2T)
	case keyImmediateData:
		return both(v, c.ImmediateData, &r.ImmediateData)
	case keyDataPDUInOrder:
		return either(v, true, &r.DataPDUInOrder)
	case keyDataSequenceInOrder:
		return either(v, true, &r.DataSequenceInOrder)
	case keyMaxConnections:
		return smaller(v, 1, countMax, c.MaxConnections, &r.MaxConnections)
	case keyMaxBurstLength:
		return smaller(v, lengthMin, lengthMax, c.MaxBurstLength, &r.MaxBurstLength)
	case keyFirstBurstLength:
		return answerFirstBurst
	case keyDefaultTime2Wait:
		return larger(v, 0, secondsMax, c.DefaultTime2Wait, &r.DefaultTime2Wait)
	case keyDefaultTime2Retain:
		return smaller(v, 0, secondsMax, c.DefaultTime2Retain, &r.DefaultTime2Retain)
	case keyMaxOutstandingR2T:
		return smaller(v, 1, countMax, c.MaxOutstandingR2T, &r.MaxOutstandingR2T)
	case keyErrorRecoveryLevel:
		return smaller(v, 0, erlMax, c.ErrorRecoveryLevel, &r.ErrorRecoveryLevel)
	case keyISCSIProtocolLevel:
		return smaller(v, 0, levelMax, c.ISCSIProtocolLevel, &r.ISCSIProtocolLevel)
	case keyIFMarker, keyOFMarker: // obsolete: never NotUnderstood, RFC 7143 section 13.25
		var no bool
		return both(v, false, &no)
	case keyIFMarkInt, keyOFMarkInt:
		return answerReject
	}
	panic("login: operational key without a rule: " + p.Key)
}

// firstBurst answers FirstBurstLength, which must not exceed MaxBurstLength.
func (n *negotiation) firstBurst(offered string) string {
	r := &n.params
	if r.InitialR2T && !r.ImmediateData {
		return answerIrrelevant
	}
	return smaller(offered, lengthMin, lengthMax, min(n.cfg.FirstBurstLength, r.MaxBurstLength), &r.FirstBurstLength)
}

// finish returns the parameters when the login ends, or a *StatusError if they are none that the target allows.
func (n *negotiation) finish() (Params, error) {
	p := n.params
	p.FirstBurstLength = min(p.FirstBurstLength, p.MaxBurstLength)
	if !slices.Contains(n.cfg.HeaderDigests, p.HeaderDigest) || !slices.Contains(n.cfg.DataDigests, p.DataDigest) {
		return Params{}, failf(StatusInitiatorError, "HeaderDigest=%v and DataDigest=%v are not allowed here", p.HeaderDigest, p.DataDigest)
	}
	return p, nil
}

func isAnswer(v string) bool {
	return v == answerIrrelevant || v == answerNotUnderstood || v == answerReject
}

// list answers a list with its first element that is allowed, and sets dst to it.
func list[T fmt.Stringer](value string, allowed []T, dst *T) string {
	for item := range strings.SplitSeq(value, ",") {
		for _, a := range allowed {
			if item == a.String() {
				*dst = a
				return item
			}
		}
	}
	return answerReject
}

// either answers a boolean with the OR of both sides, and sets dst to it.
func either(value string, ours bool, dst *bool) string {
	theirs, ok := parseBool(value)
	if !ok {
		return answerReject
	}
	*dst = theirs || ours
	return formatBool(*dst)
}

// both answers a boolean with the AND of both sides, and sets dst to it.
func both(value string, ours bool, dst *bool) string {
	theirs, ok := parseBool(value)
	if !ok {
		return answerReject
	}
	*dst = theirs && ours
	return formatBool(*dst)
}

type number interface{ uint8 | uint16 | uint32 }

// smaller answers a number within lo and hi with the minimum of both sides, and sets dst to it.
func smaller[T number](value string, lo, hi uint64, ours T, dst *T) string {
	return pick(value, lo, hi, dst, func(theirs T) T { return min(theirs, ours) })
}

// larger answers a number within lo and hi with the maximum of both sides, and sets dst to it.
func larger[T number](value string, lo, hi uint64, ours T, dst *T) string {
	return pick(value, lo, hi, dst, func(theirs T) T { return max(theirs, ours) })
}

func pick[T number](value string, lo, hi uint64, dst *T, f func(T) T) string {
	theirs, ok := parseNumber(value, lo, hi)
	if !ok {
		return answerReject
	}
	*dst = f(T(theirs))
	return strconv.FormatUint(uint64(*dst), 10)
}

// parseNumber parses a decimal or hexadecimal constant (RFC 7143 section 6.1) within lo and hi.
func parseNumber(s string, lo, hi uint64) (uint64, bool) {
	base := 10
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X") {
		s, base = s[2:], 16
	}
	v, err := strconv.ParseUint(s, base, 64)
	if err != nil || v < lo || v > hi {
		return 0, false
	}
	return v, true
}

func parseBool(s string) (value, ok bool) { return s == valueYes, s == valueYes || s == valueNo }

func formatBool(b bool) string {
	if b {
		return valueYes
	}
	return valueNo
}
