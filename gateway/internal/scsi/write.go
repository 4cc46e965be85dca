package scsi

import "context"

// WRITE(6), WRITE(10), WRITE(12), WRITE(16) (SBC-3 5.33 to 5.36). GOOD means that the data are on stable storage,
// so DPO and FUA are accepted and change nothing.

func write6(ctx context.Context, a *attachment, c *Command)  { a.write(ctx, c, extent6(c)) }
func write10(ctx context.Context, a *attachment, c *Command) { a.write(ctx, c, extent10(c)) }
func write12(ctx context.Context, a *attachment, c *Command) { a.write(ctx, c, extent12(c)) }
func write16(ctx context.Context, a *attachment, c *Command) { a.write(ctx, c, extent16(c)) }

// write stores the data-out at e and returns what it stored; ok is false when it ended c. See Command.DataOut for
// data-out that is shorter than e.
func (a *attachment) write(ctx context.Context, c *Command, e extent) (stored []byte, ok bool) {
	if !a.transferable(c, e) {
		return nil, false
	}
	length := a.bytes(e)
	c.Transfer = uint64(length)
	data := c.DataOut
	if int64(len(data)) > length {
		data = data[:length]
	}
	if len(data)&(1<<a.unit.Shift()-1) != 0 {
		a.fail(c, senseData{Code: InvalidFieldInCommandIU})
		return nil, false
	}
	if len(data) == 0 {
		return nil, true
	}
	if err := a.writeMedium(ctx, c, data, a.offset(e)); err != nil {
		a.failBackend(ctx, c, err, true)
		return nil, false
	}
	return data, true
}
