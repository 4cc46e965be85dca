package scsi

import "context"

// SYNCHRONIZE CACHE(10), SYNCHRONIZE CACHE(16) (SBC-3 5.26, 5.27). Every write that was answered is on stable storage,
// so only the range is checked. A length of 0 means to the end.

func synchronizeCache10(_ context.Context, a *attachment, c *Command) { a.within(c, extent10(c)) }
func synchronizeCache16(_ context.Context, a *attachment, c *Command) { a.within(c, extent16(c)) }
