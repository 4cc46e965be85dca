// Package scsi is the SCSI core of the gateway: a device server for direct access block devices in the sense of
// SAM-5, SPC-4 and SBC-3. It knows nothing of iSCSI, sockets or clocks and imports only the standard library.
//
//	 Nexus (one per session)          LUNMap (one per target and initiator)
//	    │  Execute(ctx, *Command)        │  LUN ─► Mapping{LogicalUnit, Backend, …}
//	    ▼                                ▼
//	attachment (I_T_L nexus: unit attentions, Backend, read-only flag)
//	    │
//	    ▼
//	command table ─► one file per command ─► Backend (medium, in bytes)
//	    │
//	lu.Unit (identity, capacity, limits; shared by every nexus that sees the volume)
//
// Execution. Nexus.Execute runs one command to its end in the calling goroutine. Any number of commands may run at
// the same time, also on one logical unit; the data path takes no lock. Classify tells, from the CDB alone, whether
// a command needs the medium (and so may block in the Backend) or answers at once.
//
// Order of judgement for a command: logical unit present, operation code known, unit attention pending, volume being sanitized, CDB long
// enough, NACA and reserved bits zero, write protection, the command's own checks, Backend.
//
// Multi-byte integers are big-endian everywhere. A CDB (SPC-4 4.2) is opcode, command-specific bytes and a
// CONTROL byte; bytes after the CDB's own length are padding and are not looked at:
//
//	READ(10)   28 | RDPROTECT DPO FUA RARC FUA_NV . | LBA(4) | GROUP | LENGTH(2) | CONTROL
//	READ(16)   88 | RDPROTECT DPO FUA RARC FUA_NV . | LBA(8) | LENGTH(4) | GROUP | CONTROL
//
// What only encodes or parses is a package of its own below this one: sense (sense data, in the format that D_SENSE
// asks for), vpd (INQUIRY data), alua (target port groups), mode (mode pages), logpage (log pages), opcodes (the index and
// the report of the table), sam (values of the architecture), unmap and sanitize (parameter lists); media has what is made of
// several operations of a Backend; lu is the logical unit, with what all nexuses share of it.
//
// A file holds one command or one family that shares its code and is named after it; operations.go is the table
// of all of them. What the table does not list answers ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE at once.
package scsi
