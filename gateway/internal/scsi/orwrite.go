package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/media"
)

// orwrite16 is ORWRITE(16) (SBC-3 5.7): each bit of the data-out that is set is set on the medium. No write of
// any path is lost; see media.Or.
func orwrite16(ctx context.Context, a *attachment, c *Command) {
	e := extent16(c)
	if !a.transferable(c, e) || e.blocks == 0 {
		return
	}
	data, ok := a.parameterList(c, int(a.bytes(e)))
	if !ok {
		return
	}
	if err := media.Or(ctx, a.backend, &a.unit.Buffers, a.offset(e), data); err != nil {
		a.failBackend(ctx, c, err, true)
	}
}
