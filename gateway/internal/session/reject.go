package session

import (
	"errors"
	"slices"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// rejectReason returns the reason to give for err, and whether a Reject may be sent at all.
func rejectReason(err error) (reason pdu.RejectReason, answer bool) {
	if digest, ok := errors.AsType[*pdu.DigestError](err); ok {
		return pdu.RejectDataDigestError, !digest.Header
	}
	if format, ok := errors.AsType[*pdu.FormatError](err); ok {
		return format.Reason, true
	}
	return pdu.RejectProtocolError, true
}

// reject queues a Reject of the PDU with header h.
func (c *Conn) reject(h *pdu.Header, reason pdu.RejectReason) {
	c.s.stats.Rejected++
	r := pdu.RejectOf(h, reason)
	i := item{stat: statAdvance, data: slices.Clone(r.Data)}
	if len(i.data) > c.maxSend {
		i.data = i.data[:c.maxSend]
	}
	r.AppendHeader(i.head[:0], len(i.data))
	c.enqueue(i)
}
