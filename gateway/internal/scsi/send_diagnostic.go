package scsi

import "context"

// sendDiagnostic is SEND DIAGNOSTIC (SPC-4 6.42) as far as every disk has it: the default self-test (SELFTEST), which
// passes. What could fail is tested all the time: each block is verified when it is read, and the store repairs it. Other
// self-tests and diagnostic pages are refused by the table.
func sendDiagnostic(context.Context, *attachment, *Command) {}
