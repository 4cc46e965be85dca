// Package cli holds the administrator's verbs of the ashlar command. Each of them asks the active metaserver through
// storage/metaclient, whichever address it is given, and prints a table for people or JSON for programs:
//
//	-o table   columns; sizes in binary units, times as ages
//	-o json    one object, or an array of objects for lists; field names in lowercase with underscores, sizes in bytes
//	           (…_bytes), times in milliseconds since 1970 (…_unix_ms); fields are added, never renamed or removed
//
// Errors are returned with what to do about them; the caller prints them to stderr and exits with a non-zero status.
package cli
