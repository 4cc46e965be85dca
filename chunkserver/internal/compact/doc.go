// Package compact gathers what lies scattered in the data file of a chunkserver, so that a volume that was overwritten at random can
// still be read in large pieces, and gives disk space back that the file has to spare.
//
//	survey: how do the blocks of each chunk lie? ──► the worst chunks ──► settle ──► those that did not change meanwhile:
//	   ▲  extent maps only                           candidatesMax                   1 MiB at a time, paced:
//	   └───────── surveyEvery, or at once after a round that moved something ◄────── Gather, Exchange
//
// What it may take:
//
//	rate   bytes read and written per second: Config.RateMax at most
//	share  when requests came in during a step, the next waits yieldFactor times as long as the step took
//	busy   above busyRequests per second nothing is moved
//	space  nothing is moved while writes are short of it (Disk.Roomy)
//	memory a step's 2 MiB, and the candidates; nothing that grows with the disk
//
// To move blocks is a matter of one disk: no replica hears of it, and no entry of the raft log tells it. storage/blockstore says what
// must hold. A block that is met damaged is left to the scrub.
package compact
