// Package selftest asks an iSCSI target what a host would ask it before it relies on it, and says what that host would
// make of the answers. It logs in as Windows, VMware ESXi or Linux does and goes through the checks that those publish:
// bytes of INQUIRY data and vital product data, mode and log pages, capacity, persistent reservations as cluster
// validation uses them, the commands of copy offload and locking, and time limits.
//
//	selftest.go     Run, Options, Report
//	url.go          iscsi://[USER[%SECRET]@]HOST[:PORT]/TARGET/LUN
//	probe.go        the sessions of a run, and what a check may do with them
//	profiles.go     which checks belong to which host
//	session.go      login, discovery, digests, ping, task management
//	identity.go     INQUIRY, VPD pages 00h 80h 83h B1h, LUN 0
//	alua.go         REPORT TARGET PORT GROUPS, all portals
//	capacity.go     READ CAPACITY, mode and log pages, ordinary reads and writes
//	provision.go    VPD pages B0h B2h, UNMAP, WRITE SAME, GET LBA STATUS
//	reservation.go  PERSISTENT RESERVE, RESERVE(6)
//	atomic.go       COMPARE AND WRITE, and its use as a heartbeat
//	copy.go         EXTENDED COPY, tokens (ODX)
//
// It knows nothing of this product: its initiator (cmd/ashlar/initiator/wire) shares no code with the gateway, and the
// target may be any. A check that changes data or reservations runs only on blocks that the caller allows.
package selftest
