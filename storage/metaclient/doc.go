// Package metaclient asks the metaservers. It is used by the gateway, the chunkserver and the command line.
//
// Of several metaservers one is active and answers; a standby refuses with FAILED_PRECONDITION and a NotActive
// detail that names the active one. A Client keeps one connection to each address that it was given or was told,
// remembers which one answered last, and tries again until the call's context ends:
//
//	call ──► address that answered last ──► answer
//	            │ NotActive{active}: ask that one          (at once, at most hopsMax times in a row)
//	            │ NotActive{}, unavailable, no answer      (next address, after 50 ms … 1 s, with jitter)
//	            └ any other error: returned as it is
//
// Every call carries the metadata "ashlar-protocol" (see Protocol) and "ashlar-request", a number of its own that
// stays the same when the call is repeated, so that a creation whose answer was lost is not refused as a second one.
package metaclient
