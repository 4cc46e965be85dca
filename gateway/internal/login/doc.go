// Package login is the target's side of the iSCSI login phase of one connection (RFC 7143 section 6.3), and the
// text-key machinery (sections 6.1, 6.2 and 13) that full-feature text negotiation shares with it. It is sans-IO: it
// gets PDUs and returns PDUs, has no goroutine, socket, file or clock, and asks its Env about targets and sessions.
// Deadlines and the number of logins under way belong to the caller.
//
// The data segment of a login or text PDU is a list of pairs, each ended by a zero byte; a list may be cut anywhere
// and go on in the next PDU if the C bit is set:
//
//	InitiatorName=iqn.1994-05.com.example:host<0>SessionType=Normal<0>AuthMethod=CHAP,None<0>
//
// The stages (CSG is the current one, NSG with T=1 asks to move; the target agrees by T=1):
//
//	               T, NSG=1                         T, NSG=3
//	first ---> SecurityNegotiation (0) ---> LoginOperationalNegotiation (1) ---> FullFeaturePhase (3)
//	  |                 |                          ^                                    ^
//	  |                 +-- T, NSG=3 --------------|------------------------------------+
//	  +--- if no authentication is required -------+
//
// CHAP inside SecurityNegotiation, RFC 7143 section 12.1.3 (what is in brackets makes it mutual):
//
//	initiator -> AuthMethod=CHAP,None
//	target    <- AuthMethod=CHAP
//	initiator -> CHAP_A=7,5
//	target    <- CHAP_A=7 CHAP_I=<id> CHAP_C=<challenge>
//	initiator -> CHAP_N=<user> CHAP_R=<response> [CHAP_I=<id> CHAP_C=<challenge>]
//	target    <- [CHAP_N=<user> CHAP_R=<response>]
//
// Everything that a peer can make this package hold is bounded by the constants in text.go and chap.go.
package login
