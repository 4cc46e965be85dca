// Package quiet decides when an idle raft group stops its clock, and when it starts again.
//
//	leader   idle for QuietTicks ──► asks with its heartbeats ──► all members agree ──► quiet: no tick, no message, no lease
//	                                        │        ▲                                    │
//	follower                                └► nothing in flight? ──► agrees, quiet       └─► wakes: heartbeats to all
//
//	process  ── beat (incarnation) ──► process        in place of the heartbeats of all the quiet groups that they share
//
// What must hold:
//
//   - I1. A quiet group has no lease. Its leader takes the lease away before it stops, and the first read wakes it: one round
//     of heartbeats brings the lease back.
//   - I2. A follower is quiet only while it hears its leader's process, in the incarnation that asked. Silence and another
//     incarnation wake it. A process begins another incarnation when it starts, and when a group stops that may have asked:
//     so it vouches, as long as it goes on in one, that each group that asked is led by a live raft node or has one here that
//     will campaign.
//   - I3. Whoever has something to do wakes: any message of raft, proposal, read, order, image. A leader that wakes sends
//     heartbeats to all; a follower that wakes without having heard its leader calls it, again and again until it answers.
//   - I4. What the lease needs of ticks holds. A follower that agrees has just taken a heartbeat, so its election clock stands
//     at zero, or at one if a tick came in the same round, and stays there. Ticks are a whole tick apart, so what is left of the
//     election timeout when it ticks again is what the lease takes, at least. Only when its leader's process is silent
//     for that long, counted in periods of its own that are never made up (Pulse.Tick), and nothing was answered meanwhile, the
//     promise is over: then it forgets the leader and may vote and campaign at once.
//
// Messages that are lost, late or repeated cost a wake-up and nothing else: a leader that has not heard all agree goes on
// ticking and its next heartbeat wakes who did; an agreement counts only for a stamp that was made since the leader asked.
//
// A process that is lost wakes all groups that it led on the two others, and these do not campaign at once: Delay spreads
// them over an election timeout, so of n groups about n/ElectionTicks campaign in a tick, and those of one group one after
// the other.
package quiet
