// Package disks breaks the disks of chunkservers that run in one process with a metaserver and an etcd, and looks at what
// becomes of I/O. The tests have the tag e2e and belong to the fault layer.
//
//	load ─► chunkclient ─► chunkservers ─► vfs.NewFault ─► vfs.Mem
//	                            ▲  │ heartbeats
//	                            │  ▼
//	                         metaserver ─► etcd
package disks
