// Package schedule decides, and does nothing: from the records of copysets and the reports of chunkservers it says which
// orders a chunkserver gets, how far a membership change is, which changes to begin and where new copysets go.
// It has no clock, no goroutine, no I/O; time comes as a value, chance as a seeded source.
//
//	records + reports ──► Advance  the record after what the reports show (a change is stored before its orders go out)
//	                  ──► Orders   what one chunkserver is told now
//	                  ──► Plan     replacements to begin: drain, recovery, balance
//	                  ──► Leaders  one leader to move
//	                  ──► Normal, Slowness.Look, Evacuate   which disks are slow, and who leads in their place
//	                  ──► Arrange  new copysets
//
// A replacement moves one member of a copyset from an old peer to a new one. Its step follows from the reports alone, so
// that a metaserver that has just become active goes on where the last one stopped:
//
//	create    the new peer's replica does not exist yet                       CreatePeer{join} to its chunkserver
//	learn     it is no member                                                 AddLearner to the leader
//	catch up  it is a learner and lacks entries                               nothing: the leader sends them
//	transfer  the old peer leads                                              TransferLeader to the leader
//	promote   it is a learner and has caught up                               joint Promote new, Remove old to the leader
//	done      it is a voter and the old peer is no member                     the old peer goes to Removed
//
// On the same chunkserver (a disk that lost a copyset, and no other zone is free) the old peer is removed first, because
// one chunkserver holds one replica of a copyset:
//
//	transfer → remove → clear (RemoveReplica) → create → learn → catch up → promote
//
// A replica is removed only by name: RemoveReplica goes to peers that a finished change recorded as Removed, never to one
// that is merely unknown.
package schedule
