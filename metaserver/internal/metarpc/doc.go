// Package metarpc serves api/meta/v1: it turns messages into calls of packages topology and namespace and their answers
// into messages, and it is the only part of the metaserver's insides that knows either.
//
//	call ─► protocol version ─► active? ─► handler ─► still active? ─► answer
//	             │                 │ no                    │ no
//	  FAILED_PRECONDITION    FAILED_PRECONDITION with NotActive{address of the active one}
//
// A Server outlives terms: Begin gives it the state of one, End takes it away, which ends the streams and the calls in
// flight and waits for them.
//
// What gateways watch (Exports) is built anew when something changed, at most every coalesce, and sent when it differs
// from what was sent before. Its revision is
//
//	election revision << 28 | number within the term
//
// so that it rises within a term and from one to the next. Gateways confirm with their heartbeats, at once, by which revision
// they serve. A call of the administrator that changes the exports is answered when all gateways that may be serving have
// confirmed a set that was built after the change, or after confirmMax with the names of those that have not. The reset of a
// logical unit waits in the same way (reset.go).
package metarpc
