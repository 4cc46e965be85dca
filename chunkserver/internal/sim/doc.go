// Package sim runs whole clusters of chunkservers in one goroutine, on simulated time, network and disks, so that a seed
// repeats a run exactly. The code is the product's: copyset, multiraft, groupcommit, raftlog and blockstore with its index.
//
//	clients ──┐                                       ┌── vfs.Mem: a crash loses any part of what was not synced
//	          ├─ network ── multiraft.Host ── raftlog,│
//	nemesis ──┘  (port)     on life.Scheduler         blockstore ── Pebble over a file system that forgets what was not synced
//	   │                          │
//	   └─ crashes, partitions …   └─ tasks: coroutines, of which one runs until it waits (package sched)
//
// # What makes it repeatable
//
// Each goroutine of a host is a coroutine (iter.Pull). When one waits, the world draws the next from those that can go on;
// when none can, the time moves to the next timer or packet. Every draw comes from the seed; raft draws its election
// timeouts from crypto/rand, which the tests make a function of the seed (testing/cryptotest). Pebble keeps goroutines of
// its own. They do not matter to the run: a checkpoint waits for Pebble's flush in one step, and a crash comes before the
// flush or after it, with what was flushed. Pebble's own crash states are tested in storage/blockstore.
// TestSimRepeats compares the hashes of all that happened in two runs of a seed.
//
// # Faults
//
// Chunkservers crash at a write or sync, before or after it, or at any other moment, alone or all at once; what was not
// synced is lost in part, torn at sectors. Packets are lost, repeated, delayed and overtake each other; links are cut both
// ways, one way, and again and again. Processes are stopped and go on; clocks go at different speeds (within the drift that
// the lease allows for) and jump forward; disks are slow, and full for a while (full). Leadership is moved, peers are replaced by
// others. Followers fall so far behind that they get images. Gateways hang and deliver a command when another has begun a new
// epoch. In some runs the disks of one, two or all chunkservers invert bits, lose writes or send them astray, or fail reads; or that
// of one fails a write or a sync, or has bits of its log or its index inverted (illness). A peer that is out because of that is
// replaced by one on another chunkserver. In a duel a leader is cut off, stopped, or hands over, just while others elect, and reads go
// to it as fast as it answers.
//
// # Promises that are checked
//
// The history of each chunk is linearizable, as one register of all its sectors, compare and write included, so no
// acknowledged operation is lost and none is there in part; a command of an old epoch changes nothing once the new one is
// known; a peer that was removed says nothing any more; bytes that nobody wrote are never read; writes are refused for space, or because of damage, only where there is a reason,
// and discards are not; the digests that replicas compute at an index are equal, at any time; within a minute after the last fault
// everything that was asked for is answered, and then all replicas are the same to the byte, have the same blocks allocated, and
// each disk has nothing in use besides. Where a majority of a copyset, or all good copies of a block, are lost, the history of what
// was answered is still linearizable.
//
// Bug lists deliberate bugs; TestSimBugs shows that each is found.
//
// # What is not simulated
//
// The gRPC services, the metaserver (what it orders is given by tend), versions of volumes, which no command of a copyset takes yet.
// Other tests have these.
package sim
