// Package election makes one metaserver of a cluster the active one, with etcd's election recipe and the care that it
// leaves to its user.
//
//	PREFIX/LEASE = {"name":…,"address":…,"version":…,"since_unix_ms":…,"instance":…}   one key per candidate, bound to its lease
//
// The candidate whose key has the lowest CreateRevision is active. That revision is the fence of everything it writes.
//
//	grant lease ─► keep it alive ─► campaign ─► read own key again ─► lead ─► workers stopped ─► resign ─► revoke
//
// A process that was killed leaves its lease behind, and nobody is active until it expires. The next process on the same data
// directory (package leasefile) revokes it before it takes part itself.
//
// What the recipe does not say and this package does:
//
//   - Campaign returns without error when the own key is gone together with those before it (all leases expired while
//     etcd was down), so the own key is read again before leading.
//   - The lease is good until TTL after the *sending* of the last renewal that was answered, less a margin; not until the
//     next renewal fails. It is measured on the monotonic clock. A timer ends the term then, and Term.Valid looks at the
//     clock itself, so that a process that was stopped and resumed finds out before it acts, whatever its timers did.
//   - The own key is read with each renewal: one that somebody removed ends the term although the lease lives.
//   - The function that leads returns only when its workers have ended; resigning comes after that.
//
// None of this is what keeps two active metaservers from writing: the transaction that names the CreateRevision is
// (package metastore). It keeps them from answering.
package election
