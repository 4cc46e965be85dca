package login

import "strconv"

// identify takes the names and the session type out of the first list, finds the rights of the initiator, and returns
// what the target says of itself and the pairs that are left.
func (l *Login) identify(pairs []Pair) (greeting, rest []Pair, err error) {
	given := map[string]string{}
	for _, p := range pairs {
		if keyUses[p.Key]&useIdentity == 0 {
			rest = append(rest, p)
			continue
		}
		if err := l.keys.once(p.Key); err != nil {
			return nil, nil, err
		}
		given[p.Key] = p.Value
	}
	if err := l.identity(given); err != nil {
		return nil, nil, err
	}
	l.security = security{cfg: &l.cfg, rand: l.rand, env: l.env, initiator: l.initiator}
	l.keys.discovery = l.kind == SessionDiscovery
	if l.kind == SessionDiscovery {
		err = l.findDiscovery()
	} else {
		greeting, err = l.findTarget()
	}
	if err != nil {
		return nil, nil, err
	}
	l.identified = true
	return greeting, rest, nil
}

// identity checks InitiatorName, SessionType and TargetName, RFC 7143 section 6.3.
func (l *Login) identity(given map[string]string) error {
	name, ok := given[keyInitiatorName]
	if !ok {
		return failf(StatusMissingParameter, "InitiatorName is missing")
	}
	if l.initiator, ok = NormalizeName(name); !ok {
		return failf(StatusInitiatorError, "InitiatorName=%q is no iSCSI name", name)
	}
	switch kind, ok := given[keySessionType]; {
	case !ok, kind == SessionNormal.String():
		l.kind = SessionNormal
	case kind == SessionDiscovery.String():
		l.kind = SessionDiscovery
		return nil
	default:
		return failf(StatusSessionTypeUnsupported, "SessionType=%q", kind)
	}
	if name, ok = given[keyTargetName]; !ok {
		return failf(StatusMissingParameter, "TargetName is missing")
	}
	if l.target, ok = NormalizeName(name); !ok {
		return failf(StatusNotFound, "TargetName=%q is no iSCSI name", name)
	}
	return nil
}

func (l *Login) findDiscovery() error {
	info := l.env.LookupDiscovery(l.initiator)
	if !info.Allowed {
		return failf(StatusAuthorizationFailure, "%s may not discover", l.initiator)
	}
	l.security.open, l.security.auths = info.Open, info.Auths
	return nil
}

// findTarget looks the target up. The first response to a request with TargetName must have TargetPortalGroupTag,
// RFC 7143 section 13.9.
func (l *Login) findTarget() ([]Pair, error) {
	info := l.env.LookupTarget(l.initiator, l.target)
	switch {
	case !info.Exists:
		return nil, failf(StatusNotFound, "%s asks for %s, which does not exist", l.initiator, l.target)
	case !info.Allowed:
		return nil, failf(StatusAuthorizationFailure, "%s may not use %s", l.initiator, l.target)
	case info.Redirect != nil:
		status := StatusMovedTemporarily
		if info.Redirect.Permanent {
			status = StatusMovedPermanently
		}
		return nil, &StatusError{status, l.target + " is at " + info.Redirect.Address, info.Redirect.Address}
	case info.Unavailable:
		return nil, failf(StatusServiceUnavailable, "%s is not available now", l.target)
	}
	l.portal = info.PortalGroupTag
	if info.Auth.Initiator == nil {
		l.security.open = true
	} else {
		l.security.auths = []Auth{info.Auth}
	}
	greeting := []Pair{{keyTargetPortalGroupTag, strconv.Itoa(int(info.PortalGroupTag))}}
	if info.Alias != "" {
		greeting = append(greeting, Pair{keyTargetAlias, info.Alias})
	}
	return greeting, nil
}

func formatUint(v uint32) string { return strconv.FormatUint(uint64(v), 10) }
