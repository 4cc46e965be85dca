package scsi

import "context"

// READ(6), READ(10), READ(12), READ(16) (SBC-3 5.10 to 5.13). DPO and FUA are accepted and change nothing: there is
// no volatile cache between the initiator and the replicas.

func read6(ctx context.Context, a *attachment, c *Command)  { a.read(ctx, c, extent6(c)) }
func read10(ctx context.Context, a *attachment, c *Command) { a.read(ctx, c, extent10(c)) }
func read12(ctx context.Context, a *attachment, c *Command) { a.read(ctx, c, extent12(c)) }
func read16(ctx context.Context, a *attachment, c *Command) { a.read(ctx, c, extent16(c)) }

// read reads e straight into the caller's buffer, but no more than the initiator takes.
func (a *attachment) read(ctx context.Context, c *Command, e extent) {
	if !a.transferable(c, e) {
		return
	}
	length := a.bytes(e)
	if n := min(length, int64(c.MaxDataIn)); n > 0 {
		p := c.alloc(int(n))
		if err := a.readMedium(ctx, c, p, a.offset(e)); err != nil {
			a.failBackend(ctx, c, err, false)
			return
		}
		c.DataIn = p
	}
	c.Transfer = uint64(length)
}
