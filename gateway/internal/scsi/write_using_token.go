package scsi

import "context"

// writeUsingToken is WRITE USING TOKEN (SBC-3 5.46). The source must be a logical unit that the nexus sees.
func writeUsingToken(ctx context.Context, a *attachment, c *Command) {
	a.copyOut(ctx, c, 6, (*CopyManager).Write)
}
