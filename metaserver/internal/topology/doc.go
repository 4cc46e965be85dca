// Package topology keeps who belongs to the cluster: chunkservers (pool → zone → server → chunkserver), copysets and
// gateways. Records are in etcd, reports of heartbeats in memory only.
//
//	table "cluster"      key "id"          the cluster's 16-byte id, made once
//	table "ids"          key "topology"    the next free ids; an id is never given twice
//	table "chunkserver"  key ID            ChunkserverRecord
//	table "copyset"      key ID            schedule.Record
//	table "gateway"      key ID            GatewayRecord
//
// Keys are 16 hexadecimal digits.
//
//	Heartbeat ──► reports ──► (Tick) schedule.Advance ──► etcd ──► memory ──► schedule.Orders ──► next reply
//
// # Locking
//
// turn (a token) is held by the one who changes records, from reading them to the end of the etcd transaction; then mu is
// taken for the moment in which memory follows. Nobody waits for etcd under mu. Order: turn before mu.
//
// A record in memory is never changed in place, only replaced, so what a reader took under mu stays consistent after it.
package topology
