// Package reservation is the state of the reservations of one logical unit, as a pure function: a state and a request
// give the next state, the answer, and who is to be told. It knows no clock, store or network.
//
//	request ──► State.Apply ──► Result{State, Status, Changed, Narrowed}
//	                              └─ State.Events: whom to tell by which unit attention, whose commands to abort
//
// Persistent reservations (SPC-4 5.13) are those of the whole logical unit; the element scope is obsolete. Who registers is
// an I_T nexus: an initiator port (name and ISID) and a target port. Registrations outlive everything but the volume: the
// store is replicated, so a loss of power that would clear them does not exist, whatever APTPL says.
//
// Beside them live the reservations of SPC-2 (RESERVE and RELEASE), which end with their nexus or by a reset. The two
// exclude each other, as SPC-2 5.5.1 and SPC-3 5.6.3 want it without the exceptions of CRH.
//
// With them goes what else all who serve the logical unit must know: the settings of the Control mode page (Modes), and a
// SANITIZE that is under way or has failed.
//
// Fencing. A Result is Narrowed when some nexus may do less than before, when the logical unit was reset, when the medium became write
// protected, or when a SANITIZE began or went to another gateway. Then the volume's
// access generation has to rise with the state, so that what was judged by the state before is refused by the store and judged
// again.
//
// A State is immutable once made: Apply copies what it changes, and what it returns may share the rest.
package reservation
