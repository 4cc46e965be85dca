package login

import "github.com/ashlar-storage/ashlar/gateway/internal/pdu"

// Env is what a login asks of its surroundings. Every method answers at once from memory. Names are validated and in
// lower case.
type Env interface {
	// LookupTarget tells what initiator may know about target.
	LookupTarget(initiator, target string) TargetInfo
	// LookupDiscovery tells whether and how initiator may open a discovery session.
	LookupDiscovery(initiator string) DiscoveryInfo
	// Permit is asked before CHAP begins. An error that is a *StatusError ends the login with it, any other with
	// StatusTargetError: it is how those are held off who failed too often.
	Permit(initiator string) error
	// Authenticated tells how a CHAP that was permitted ended, if the initiator gave all that it takes.
	Authenticated(initiator string, ok bool)
	// Admit decides on the session when everything else of the login succeeded, just before the final response. An
	// error that is a *StatusError ends the login with it, any other with StatusTargetError. If the login reinstates
	// a session (same initiator, ISID and portal group), Admit only notes it: whoever called Receive holds the final
	// response back until the old session is closed.
	Admit(a Admission) (Grant, error)
}

// TargetInfo is what a login needs to know about a target.
type TargetInfo struct {
	Exists      bool // else the login ends with StatusNotFound
	Allowed     bool // for this initiator, else StatusAuthorizationFailure
	Unavailable bool // for now: StatusServiceUnavailable
	// Redirect sends the initiator elsewhere, if not nil.
	Redirect       *Redirect
	PortalGroupTag uint16 // of the portal that the connection came to
	Alias          string // TargetAlias, up to MaxValueLen bytes; empty is none
	Auth           Auth
}

// DiscoveryInfo is what a login needs to know for a discovery session. What the session lists is what the initiator may
// use with what it has proven (Proof).
type DiscoveryInfo struct {
	Allowed bool   // else StatusAuthorizationFailure
	Open    bool   // no proof is needed
	Auths   []Auth // the proofs that are taken; each has an Initiator; at most MaxDiscoveryAuths
}

// MaxDiscoveryAuths bounds the different proofs that one initiator may give in a discovery session.
const MaxDiscoveryAuths = 64

// Redirect is where a target moved.
type Redirect struct {
	Permanent bool
	Address   string // as TargetAddress wants it: "host:port", IPv6 in brackets
}

// Auth says how an initiator must authenticate itself, and how the target does if asked.
type Auth struct {
	// Initiator is what the initiator must prove by CHAP; nil needs no authentication.
	Initiator *Credentials
	// Mutual is how the target proves itself; nil refuses an initiator that asks for it.
	Mutual *MutualCredentials
}

// Credentials are a CHAP user's name and its valid secrets.
type Credentials struct {
	User string
	// Secrets are 1 or, while one is being replaced, 2 (MaxSecrets). Borrowed, not written.
	Secrets []Secret
}

// MutualCredentials are the target's own name and secret.
type MutualCredentials struct {
	User   string
	Secret Secret // borrowed, not written
}

// Secret is a CHAP secret. It does not print itself.
type Secret []byte

// String hides the secret.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret.
func (Secret) GoString() string { return "[secret]" }

// Admission is a login that asks for a session, or for a place in one.
type Admission struct {
	Type           SessionType
	InitiatorName  string
	TargetName     string // empty for discovery
	PortalGroupTag uint16
	ISID           pdu.ISID
	TSIH           pdu.TSIH // 0: a new session; else a connection more, or again, in that one
	CID            pdu.CID
	CmdSN          pdu.CmdSN // the first that the session will carry, if it is new
	Params         Params    // of a connection more, only the digests and MaxRecvDataSegmentLengths are negotiated
}

// Grant is the answer to an Admission.
type Grant struct {
	TSIH pdu.TSIH // never 0; equal to the Admission's if that was not 0
	// ExpCmdSN and MaxCmdSN are those of the session that a connection was added to; for a new session they are not
	// read.
	ExpCmdSN, MaxCmdSN pdu.CmdSN
}

// Result is a login that succeeded.
type Result struct {
	Type           SessionType
	InitiatorName  string
	InitiatorAlias string
	TargetName     string // empty for discovery
	PortalGroupTag uint16
	User           string // the CHAP user; empty if there was no authentication
	Proof          Proof  // what the user has proven
	ISID           pdu.ISID
	TSIH           pdu.TSIH
	CID            pdu.CID
	Leading        bool // the connection is the session's first
	Params         Params
	// ExpCmdSN is the CmdSN of the first command that is not immediate, and MaxCmdSN what the final response promised.
	ExpCmdSN, MaxCmdSN pdu.CmdSN
	// StatSN is that of the next response on the connection.
	StatSN pdu.StatSN
}
