package session

import "github.com/ashlar-storage/ashlar/gateway/internal/pdu"

// receiveLogout ends the session or one of its connections, RFC 7143 section 11.14.
func (c *Conn) receiveLogout(h *pdu.Header) error {
	p, err := pdu.ParseLogoutRequest(h, nil, nil)
	if err != nil {
		return err
	}
	s := c.s
	switch p.Reason {
	case pdu.LogoutCloseSession:
		s.abortWhere(anyTask)
		for _, o := range append([]*Conn(nil), s.conns...) {
			if o != c {
				o.remove()
			}
		}
		c.respondLogout(p.ITT, pdu.LogoutClosed)
		c.close()
	case pdu.LogoutCloseConnection:
		o := s.conn(p.CID)
		switch o {
		case nil:
			c.respondLogout(p.ITT, pdu.LogoutNoSuchCID)
		case c:
			s.abortWhere(func(t *Task) bool { return t.conn == c })
			c.respondLogout(p.ITT, pdu.LogoutClosed)
			c.close()
		default:
			o.remove()
			c.respondLogout(p.ITT, pdu.LogoutClosed)
		}
	default:
		c.respondLogout(p.ITT, pdu.LogoutRecoveryNotSupported)
	}
	return nil
}

// conn returns the connection with number cid, or nil.
func (s *Session) conn(cid pdu.CID) *Conn {
	for _, c := range s.conns {
		if c.cid == cid {
			return c
		}
	}
	return nil
}

func (c *Conn) respondLogout(itt pdu.ITT, result pdu.LogoutResult) {
	r := pdu.LogoutResponse{Result: result, ITT: itt}
	var h pdu.Header
	r.AppendHeader(h[:0], 0)
	c.enqueueHeader(h, statAdvance)
}
