// Package session is the iSCSI session after login: the full feature phase of a normal and of a discovery session,
// RFC 7143 sections 4 and 11, as a state machine without sockets, goroutines, files or a clock.
//
//	           PDUs of the initiator                                PDUs to send
//	                   │                                                 ▲
//	   Conn.Claim ──► data read into Place ──► Conn.Receive        Conn.Take
//	                                              │                      │
//	┌─ Session ───────────────────────────────────▼──────────────────────┴───────────┐
//	│ order (CmdSN window) ─► unit (task set) ─► data-out, R2T ─► ready ─► Conn.out  │
//	└──────────────────────────────────────────────────────────────┬──────────▲──────┘
//	                                               Effects.Start   ▼          │ Complete
//	                                                            Task.Run (medium)
//
// Inputs are PDUs (Claim, Receive), finished tasks (Complete), memory that is there (Memory), what the owner of the
// sockets sees (Ping, Lost, Congested) and what others do to the session (AbortUnit, End). Outputs are the tasks to run
// and the connections that have something to send (Effects), and the PDUs themselves (Take).
//
// Concurrency. The methods of Session and Conn are called with one mutex held, one per session, that belongs to the
// caller; there is no lock in here and none is needed elsewhere. Task.Run is the exception: it runs without that mutex,
// on a goroutine of the caller's. Buffers have counted references, so that a reader or writer of a socket may use one
// while the mutex is free and the task that it was for is gone.
//
// Numbers. CmdSN counts the commands of a session; a command runs in its turn. The initiator may send up to MaxCmdSN,
// which is moved on when the response of a command is taken for sending and never goes back: a slow medium or a slow
// network closes the window, and nothing else has to say so. StatSN is given in Take, in the order of the wire.
//
//	acknowledged ... ExpCmdSN ........ MaxCmdSN
//	  in execution  │ may be sent now │
//	                │◄─ window - active ─►
//
// Memory. Data that the initiator may send unasked is paid from a reservation that New makes, a slot for each command of
// the window, so a connection is always read; data that it sends when asked (R2T), and data to it, is leased first, and
// a task waits when there is none. See Pool.
//
// Connections. A session has up to ConnMax. A task belongs to the connection of its command: its data and its status go
// there, and it is aborted when that connection is lost. The session ends with its last connection.
//
// Errors. ErrorRecoveryLevel is 0: a PDU that breaks a rule is answered with Reject and the connection is closed. A
// request that is well formed and only not supported is rejected and the connection lives.
package session
