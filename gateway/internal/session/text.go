package session

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// receiveText takes a Text Request, RFC 7143 section 11.10. It takes pl over.
func (c *Conn) receiveText(h *pdu.Header, pl Place) error {
	defer pl.Release()
	p, err := pdu.ParseTextRequest(h, nil, pl.Bytes())
	if err != nil {
		return err
	}
	r, err := c.text.Receive(&p, c.s.newTTT())
	if err != nil {
		return err
	}
	if n := r.InitiatorMaxRecvDataSegmentLength; n > 0 {
		c.maxSend = int(n)
	}
	i := item{stat: statAdvance, data: r.Response.Data}
	r.Response.AppendHeader(i.head[:0], len(i.data))
	c.enqueue(i)
	return nil
}

// textMax is the longest text that a request may have, in bytes.
const textMax = login.MaxTextLen
