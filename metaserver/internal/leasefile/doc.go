// Package leasefile keeps, in the data directory of a metaserver, which lease of the election the process holds. When the
// process is killed, the next one on the same directory gives that lease back instead of waiting for its end.
//
// The file DIR/lease is locked (flock) for as long as a process uses the directory: who has the lock knows that the one
// before has ended. Its content is the note of who had it last (integers are little endian):
//
//	 0  8  magic "ashlease"
//	 8  4  version, 1
//	12  4  n, the bytes of the election's prefix
//	16 16  id of the machine's boot (/proc/sys/kernel/random/boot_id)
//	32  8  device and
//	40  8  inode of the file itself
//	48  8  etcd's id of its cluster
//	56  8  lease
//	64 16  instance: a random number of the process that held the lease
//	80  n  the election's prefix
//	 …  4  CRC32C of all before
//
// The lock proves something about this file and this machine only, so the note counts only if it names both: a directory
// that was copied has another inode or another device, one that is on another machine (or was carried over a restart of the
// machine, which takes longer than a lease) another boot. Whoever uses the note compares the instance with the one that is
// stored in etcd under the lease, so a note about another cluster, or about a lease that is long gone, names nothing.
//
// A note that is missing, damaged or not to be trusted is no error: it costs the life of the lease, nothing else. So the file
// is written in place, because a new file would have a new inode, and not synced, because it is not used after the machine
// was restarted.
package leasefile
