// Package target knows what a gateway exports: targets, their logical units, who may use them and with which secrets,
// and the sessions that do. It owns no socket and runs no goroutine.
//
//	Apply(Config) ──► snapshot (immutable, swapped whole) ◄── LookupTarget, Targets: every login and SendTargets
//	      │                 │
//	      │                 ├─ volume ID ─► scsi.LogicalUnit     one per volume, shared by all that see it
//	      │                 └─ target ─► access list, LUNs
//	      ▼
//	session table: TSIH ─► Session ─► scsi.Nexus ─► scsi.LUNMap   one map per (target, initiator)
//
// A login asks through an Env, which ends with a Session in the table; the portal then gives it a Control, by which the
// table closes the session: when the initiator logs in again under the same name (reinstatement), when its right is
// taken away, when its target goes, or when its medium went to another gateway.
//
// Lock order: Registry.mu is taken before the locks of package scsi and never while a Control is called.
package target
