// Package metaserver is the composition root of the metaserver: it keeps the cluster's metadata in etcd and decides where
// copysets are and who may access what. Of several metaservers one is active; the others stand by. DESIGN.md has the
// whole picture.
//
//	Run ─┬─ gRPC server (package metarpc): answers when active, else says who is
//	     └─ election ─► lead: one term
//	                     ├─ metastore   fenced transactions
//	                     ├─ topology    chunkservers, copysets, gateways   (Run: advance, plan)
//	                     ├─ namespace   volumes, targets, attachments      (Run: tell copysets that access was taken away)
//	                     ├─ exports     what gateways watch
//	                     └─ directory   where the raiser finds copysets
//
// A term ends in this order: calls are refused and those under way end; the workers end; then the election key is given
// up. The next one may then be elected while nothing of this term runs any more.
package metaserver
