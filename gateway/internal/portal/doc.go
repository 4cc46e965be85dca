// Package portal owns the sockets of an iSCSI gateway: it listens, logs initiators in, and moves bytes between their
// connections and the session engine.
//
//	          accept ──► conn.serve: login ──► reader ─┐ Claim, Receive
//	                                                   ▼
//	initiator ◄── writev ── writer ◄── Take ──── runner.mu: session.Session
//	                                                   ▲        │ Start
//	          keeper: ping, memory, Close ─────────────┘        ▼
//	                                       Complete ◄──── workers: Task.Run
//
// Goroutines and their owners. Portal.Run waits for one goroutine per listener and for each connection's serve. serve is
// the reader; it owns the connection's writer, and, with the session's first connection, the session's keeper and
// workers, and waits for all of them before it returns.
//
// Who sends. A command whose answer is at hand runs on the reader (scsi.Prompt), without a worker. When there is nothing
// more to read, the reader sends all that is ready in one writev, and so does a worker whose task was the only one that ran.
// Neither waits for the socket, because the initiator may take nothing before its own data are taken: what the socket does
// not take is left to the writer, whom everybody else wakes. output.mu says who sends; it is taken before runner.mu.
//
// Order in which a session stops, and why: the engine ends first, so that every task is aborted and every write fenced;
// then the session leaves the table, which lets an initiator in that logs in again; then the writer stops; last come the
// workers, because a medium may take its time to notice that its command was cancelled, and nobody waits for that.
//
// Locks: runner.mu is the mutex of the engine (see package session). It is held while PDUs are parsed and copied, never
// while a socket is read or written. What the engine wants done is fetched under it and done after it. Under it come, in
// this order, runner.posted and worker.mu, and no others of this package. A Control call of package target, but Numbers,
// takes only those two: it may come from another session, whose mutex is held.
package portal
