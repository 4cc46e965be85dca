// Package metastore keeps the cluster's records in etcd. Every write is fenced by the election key, so that of two
// metaservers that both believe they are active only one can write.
//
// All keys lie below one prefix per cluster:
//
//	PREFIX/election/LEASE     the candidates of the election (package election)
//	PREFIX/format             the version of what follows, decimal; a newer one than Format is refused
//	PREFIX/txn                the number of the last transaction, decimal
//	PREFIX/TABLE/KEY          a record
//
//	record   byte 0   version of the encoding, 1
//	         byte 1…  JSON; a field that a reader does not know is ignored, one that is missing is zero
//
// A batch of changes is one etcd transaction:
//
//	If    CreateRevision(own election key) == revision      the fence: nobody else was elected since
//	      Value(PREFIX/txn) == n                             this writer's last one: a repeated attempt can not take effect twice
//	Then  Put(PREFIX/txn, n+1), the batch's puts and deletes
//	Else  Get(own election key), Get(PREFIX/txn)
//
// Because a number is written with each batch, an attempt whose answer was lost can be told from one that did not
// happen: if PREFIX/txn holds n+1 it took effect. When that can not be found out in time, Commit returns ErrUnknown; its
// caller must stop being active, and whoever is elected next fences what may still be on its way.
package metastore
