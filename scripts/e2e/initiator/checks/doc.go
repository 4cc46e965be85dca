// Package checks drives an iSCSI target through the checks that interoperability suites publish the titles of, one by
// one. Each check speaks the protocol itself (packages peer and wire), also wrongly, and judges what comes back by RFC
// 7143, 5048 and 7144.
//
//	login.go      login phase: stages, T bit, TSIH, StatSN, negotiation of each key
//	redirect.go   login phase: a target that has moved
//	feature.go    full feature phase: CmdSN and its window, NOP, logout, discovery, text
//	data.go       full feature phase: data in both directions
//	tasks.go      full feature phase: task management, several connections
//	chap.go       CHAP_A, I, C, N, R: valid, invalid, out of order, too big, too small, reflected
//	recovery.go   digest errors, SNACK, reassignment, as far as the target negotiates them
//	all.go        all of these, and those of package hostile
//
// A check skips itself when the target does not have, or does not negotiate, what it is about. Each one leaves nothing
// behind that the next one needs. The logical unit is ERASED.
package checks
