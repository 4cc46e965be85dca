// Package isns is the wire format of an iSNS client that registers targets (RFC 4171). It has no socket and no clock: it makes
// requests and judges replies.
//
// A message is one PDU or several:
//
//	 0                16               31
//	+-----------------+----------------+
//	| version (1)     | function       |
//	| payload length  | flags          |   the length is a multiple of 4
//	| transaction     | sequence       |   sequence: the number of the PDU in the message
//	+-----------------+----------------+
//	| payload …                        |   a reply: status (4), then attributes
//	+----------------------------------+
//
// and an attribute is
//
//	tag (4)  length (4)  value (length bytes, padded with zeros to a multiple of 4, the padding counted)
//
// What is registered is one Network Entity for the whole cluster, because an iSCSI name belongs to exactly one entity and every
// gateway serves every target: the portals of all gateways, and the targets, each reachable through all portals with the target
// portal group tags that the gateways have:
//
//	source: a target's name
//	key: entity
//	--- delimiter ---
//	entity, protocol iSCSI, registration period
//	portal address, port                           for each portal
//	target's name, node type target                for each target …
//	    group tag, portal address, port            … and portal
//
// A request is never longer than one PDU; more targets go into more requests. No state change notifications and no status
// inquiries are asked for, so a server has no reason to connect to a gateway.
package isns
