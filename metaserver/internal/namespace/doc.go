// Package namespace keeps what is exported: volumes, targets with their LUNs and access lists, and who owns the path of
// an initiator to a volume.
//
//	table "ids"         key "namespace"           the next free ids; an id is never given twice
//	table "volume"      key ID                    VolumeRecord
//	table "target"      key IQN                   TargetRecord; CHAP secrets sealed (Sealer)
//	table "initiator"   key NAME                  the id of an initiator's name, as long as it has an attachment
//	table "attachment"  key VOLUME.INITIATOR      Attachment: whose epoch is the last one, as long as there is the volume
//
// IDs are 16 hexadecimal digits.
//
// # Taking access away
//
// Unmapping, denying and deleting raise the volume's access generation. The transaction that takes the access away also
// stores the new generation and the list of copysets in which it has to be raised; Run (through a Raiser) raises it there
// and shortens the list, again and again until it is empty, whoever is active. The administrator's call waits for that a
// short while, so that in the ordinary case access is gone when it is answered.
//
// A deleted volume keeps its record, without a name, until every copyset has given its space back.
//
// # Identity
//
// A volume's NAA-6 designator is, from its first byte (SPC-4 7.8.6.6.5):
//
//	4 bits   6
//	24 bits  company id 02A51A: ashlar has no registered one. The bit that marks locally administered addresses is set,
//	         so that it is no IEEE-registered company's
//	100 bits random, made with the volume
//
// Its serial number is the last 8 bytes of the designator as 16 hexadecimal digits. Both stay for the volume's life.
//
// # Locking
//
// As in package topology: turn before mu, no I/O under mu, records are replaced and never changed in place.
package namespace
