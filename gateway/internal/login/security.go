package login

import (
	"io"
	"strings"
)

// authStep says what the security negotiation waits for.
type authStep uint8

const (
	awaitAuthMethod authStep = iota
	awaitCHAPA               // the initiator's list of algorithms
	awaitCHAPN               // name and response, and perhaps a challenge
	authDone
)

// security is SecurityNegotiation after the targets and the initiator's rights are known.
type security struct {
	open      bool   // None will do
	auths     []Auth // what else will do; each has an Initiator
	cfg       *Config
	rand      io.Reader
	env       Env
	initiator string
	step      authStep
	chap      *chap  // from awaitCHAPN on
	user      string // who authenticated
	proof     Proof  // how
}

// securityKeys are the values of the security keys of one list.
type securityKeys map[string]string

// only reports whether k has all of the needed keys and none but those and the optional ones.
func (k securityKeys) only(needed string, optional ...string) error {
	for key := range strings.SplitSeq(needed, " ") {
		if _, ok := k[key]; !ok {
			return failf(StatusMissingParameter, "%s is missing", key)
		}
	}
	for key := range k {
		allowed := false
		for _, o := range append(strings.Split(needed, " "), optional...) {
			allowed = allowed || key == o
		}
		if !allowed {
			return failf(StatusInitiatorError, "%s out of order", key)
		}
	}
	return nil
}

// receive takes the security keys of one list and returns the answers; transit is the T bit of the request. The
// errors are *StatusError.
func (s *security) receive(keys securityKeys, transit bool) ([]Pair, error) {
	switch s.step {
	case awaitAuthMethod:
		return s.chooseMethod(keys, transit)
	case awaitCHAPA:
		if err := keys.only(keyCHAPA); err != nil {
			return nil, err
		}
		if err := s.env.Permit(s.initiator); err != nil {
			return nil, err
		}
		c, err := startCHAP(keys[keyCHAPA], s.cfg, s.rand)
		if err != nil {
			return nil, err
		}
		s.chap, s.step = c, awaitCHAPN
		return c.offer(), nil
	case awaitCHAPN:
		return s.finishCHAP(keys)
	}
	if len(keys) != 0 {
		return nil, failf(StatusInitiatorError, "security keys after the authentication")
	}
	return nil, nil
}

// chooseMethod answers AuthMethod with the first offer that will do: CHAP if there are credentials for the initiator, None
// if none are needed.
func (s *security) chooseMethod(keys securityKeys, transit bool) ([]Pair, error) {
	offered, ok := keys[keyAuthMethod]
	if !ok {
		if len(keys) != 0 {
			return nil, failf(StatusInitiatorError, "CHAP keys before AuthMethod")
		}
		if !transit {
			return nil, nil
		}
		return nil, s.withoutMethod()
	}
	if err := keys.only(keyAuthMethod); err != nil {
		return nil, err
	}
	for method := range strings.SplitSeq(offered, ",") {
		switch {
		case method == valueNone && s.open:
			s.step = authDone
		case method == valueCHAP && len(s.auths) > 0:
			s.step = awaitCHAPA
		default:
			continue
		}
		return []Pair{{keyAuthMethod, method}}, nil
	}
	want := valueCHAP
	if s.open {
		want = valueNone
	}
	return nil, failf(StatusAuthenticationFailure, "AuthMethod=%q where %s is needed", offered, want)
}

// withoutMethod is for an initiator that goes on without AuthMethod, whose default is None.
func (s *security) withoutMethod() error {
	if !s.open {
		return failf(StatusAuthenticationFailure, "the initiator must authenticate and does not")
	}
	s.step = authDone
	return nil
}

func (s *security) finishCHAP(keys securityKeys) ([]Pair, error) {
	if err := keys.only(keyCHAPN+" "+keyCHAPR, keyCHAPI, keyCHAPC); err != nil {
		return nil, err
	}
	id, hasID := keys[keyCHAPI]
	challenge, hasChallenge := keys[keyCHAPC]
	if hasID != hasChallenge {
		return nil, failf(StatusMissingParameter, "one of CHAP_I and CHAP_C is missing")
	}
	var out []Pair
	found, err := s.chap.verify(s.auths, keys[keyCHAPN], keys[keyCHAPR])
	if err == nil && hasID {
		out, err = s.chap.answer(found.auth, found.response, id, challenge)
	}
	s.env.Authenticated(s.initiator, err == nil)
	if err != nil {
		return nil, err
	}
	s.user, s.proof, s.step = found.auth.Initiator.User, found.proof, authDone
	return out, nil
}
