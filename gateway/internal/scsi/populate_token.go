package scsi

import "context"

// populateToken is POPULATE TOKEN (SBC-3 5.8).
func populateToken(ctx context.Context, a *attachment, c *Command) {
	a.copyOut(ctx, c, 6, (*CopyManager).Populate)
}
