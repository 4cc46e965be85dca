package scsi

import "context"

// PRE-FETCH(10), PRE-FETCH(16) (SBC-3 5.8, 5.9). There is no cache to fill, so only the range is checked and the
// status is GOOD: CONDITION MET would claim that the blocks are cached.

func preFetch10(_ context.Context, a *attachment, c *Command) { a.within(c, extent10(c)) }
func preFetch16(_ context.Context, a *attachment, c *Command) { a.within(c, extent16(c)) }
