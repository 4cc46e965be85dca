package scsi

import "context"

// testUnitReady is TEST UNIT READY (SPC-4 6.47). A volume that is mapped is ready; pending unit attentions were
// reported before this runs.
func testUnitReady(context.Context, *attachment, *Command) {}
