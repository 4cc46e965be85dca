// Package chunkserver is the chunkserver daemon: one process, one disk, a peer of many copysets. This package is its
// composition root; DESIGN.md tells how the parts work together.
//
//	            ┌──── streams, gRPC: one address ────┐
//	gateways ──►│ chunkrpc ─┐                         │
//	peers ─────►│ peernet ──┤                         │
//	            └───────────┼─────────────────────────┘
//	                        ▼
//	heartbeat ─orders─► multiraft ─► copyset (pure)
//	   ▲                 │     └──► storage/blockstore   DIR/store
//	   ▼                 └────────► storage/raftlog      DIR/log
//	metaserver
//
// A data directory:
//
//	LOCK         held while a chunkserver uses the directory
//	CHUNKSERVER  who it is (internal/heartbeat)
//	GENERATION   how far it has come, by which an older copy of it is known (internal/heartbeat)
//	PEERS        which copysets it has peers of (internal/multiraft)
//	log/         storage/raftlog
//	store/       storage/blockstore
package chunkserver
