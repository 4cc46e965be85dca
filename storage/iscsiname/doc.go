// Package iscsiname is what the cluster takes for the iSCSI name of an initiator (RFC 7143 section 4.2.7). One rule is for all:
// a host that a gateway lets in has a name that the metaserver keeps, in the same spelling.
//
//	iqn.YYYY-MM.reversed.domain[:anything]   eui.<16 hex digits>   naa.<16 or 32 hex digits>
//
// Names are compared byte by byte after they were folded to lower case. The rule is more lenient than the stringprep profile
// (RFC 3722), which knows only letters, digits, '-', '.' and ':' of ASCII: hosts use '_' and others that the profile forbids,
// and months that are none. What would break something else stays out: control characters and spaces, ',' (which ends the name
// in that of a port) and '=' (which ends the key of a text).
package iscsiname
