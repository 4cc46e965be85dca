package scsi

import "context"

// extendedCopy is EXTENDED COPY(LID1) (SPC-4 6.4). Sources and destinations are logical units that the nexus sees.
func extendedCopy(ctx context.Context, a *attachment, c *Command) {
	a.copyOut(ctx, c, 2, (*CopyManager).Extended)
}
