// Package scrub reads every block of a chunkserver again and again, so that damage is found while other replicas still have
// a good copy.
//
// A pass goes through the copysets, their chunks and the blocks of each in order, then what only versions of volumes have, and
// compares each block with its checksum.
// What is damaged is replaced by another peer's copy. What no peer could help with is told, and tried again each retryEvery, as
// much of it as retryMax allows and the rest the next time, until it is good or gone. Behind its last chunk the replicas of a
// copyset that is led here are compared with each other (package digest). Passes begin every Config.Interval, and a pass is paced
// to end when paceNumerator/paceDenominator of that are over:
//
//	rate  = what is left to read ÷ time left, between rateMin and Config.RateMax; a pass that was asked for: RateMax
//	pause = the bytes read ÷ rate, and yieldFactor times as long as the read took if requests came in meanwhile, unless
//	        the pass is late
//
// # State
//
// The small file SCRUB (magic "ashlarsc", version 1) holds State as JSON, so that a restart goes on where the pass was and
// knows what was found. It is written every saveEvery, at the beginning and the end of a pass, for each damaged block and after
// each retry, and when the scrub stops.
package scrub
