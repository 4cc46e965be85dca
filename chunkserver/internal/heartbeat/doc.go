// Package heartbeat is a chunkserver's side of the control path, api/meta/v1: who it is, how it reports and how it obeys.
//
//	identity (file) ─► register, until it has an id ─► heartbeat each second ─► active metaserver
//	                                                    │ reports of all copysets      │
//	                                                    ◄── orders, addresses ─────────┘
//	                                                    └─► executor ─► multiraft
//
// Orders carry the election revision of the metaserver that gives them. The highest one is on disk before any of its
// orders is obeyed; orders of a lower one are refused: a metaserver that was replaced and does not know it moves nothing.
// Orders are idempotent and come again until reports show that they took effect, so the executor takes one batch at a
// time and drops what comes meanwhile; executing never delays a heartbeat.
//
// No metaserver is needed to serve: a chunkserver that has an id starts with the addresses that it knew last.
package heartbeat
