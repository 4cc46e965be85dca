package login

import "github.com/ashlar-storage/ashlar/storage/iscsiname"

// MaxNameLen is the longest iSCSI name, in bytes, RFC 7143 section 4.2.7.
const MaxNameLen = iscsiname.Max

// NormalizeName returns an iSCSI name in lower case, and whether it is one; package iscsiname has the rule.
func NormalizeName(name string) (string, bool) { return iscsiname.Fold(name) }
