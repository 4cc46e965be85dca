// Package backoff holds off those who fail to authenticate again and again. It has no clock: the caller says what time it
// is.
//
// Each failure is counted for the address that it came from and for the initiator name that it was tried under. Above a
// number of failures that cost nothing, each further one doubles the time for which the next try is refused:
//
//	failures   free   free+1   free+2   free+3   …
//	wait       0      Base     2·Base   4·Base   … Max
//
// An attacker must not lock a host out by failing under its name, nor by failing from behind the same address translation:
//
//   - a name's wait binds only addresses from which something failed as well;
//   - (address, name) that succeeded is trusted: only its own failures count for it.
//
// All three tables are bounded; the entry that was touched longest ago goes first.
package backoff
