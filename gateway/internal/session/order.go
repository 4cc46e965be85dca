package session

import "github.com/ashlar-storage/ashlar/gateway/internal/pdu"

// order is the CmdSN window of a session, RFC 7143 section 4.2.2.1.
//
// Invariants: 1. exp and max never go back. 2. max - exp + 1 <= window. 3. what is held has a CmdSN in exp+1..max.
type order struct {
	exp    pdu.CmdSN // the next command
	max    pdu.CmdSN // the last one that may be sent
	window int       // commands
	frozen bool      // max stays where it is
	active int       // non-immediate commands that were accepted and whose end was not yet told
	held   map[pdu.CmdSN]held
}

// held is a request that waits for those before it.
type held struct {
	conn  *Conn
	head  pdu.Header
	place Place // data of a request that is no SCSI command
	task  *Task // a SCSI command; nil if it was aborted while it waited
	skip  bool  // counts as received and does nothing
}

func (o *order) start(exp pdu.CmdSN, window int) {
	o.exp, o.window = exp, window
	o.max = exp.Add(uint32(window)) - 1
	o.held = make(map[pdu.CmdSN]held)
}

// advance moves MaxCmdSN to what the window allows now. It does not go back.
func (o *order) advance() {
	if o.frozen {
		return
	}
	free := o.window - o.active
	if free < 0 {
		free = 0
	}
	if to := o.exp.Add(uint32(free)) - 1; o.max.Less(to) {
		o.max = to
	}
}

// admits tells whether a request with number sn is to be taken now or kept; a repeated one and one outside the window
// are dropped.
func (o *order) admits(sn pdu.CmdSN) bool {
	if !sn.InWindow(o.exp, o.max) {
		return false
	}
	_, dup := o.held[sn]
	return !dup
}

// next counts the request whose turn it is.
func (o *order) next() { o.exp = o.exp.Next() }

// pop returns the held request whose turn it is now.
func (o *order) pop() (held, bool) {
	if len(o.held) == 0 {
		return held{}, false
	}
	h, ok := o.held[o.exp]
	if ok {
		delete(o.held, o.exp)
		o.next()
	}
	return h, ok
}

// clear drops what is held; its tasks are the caller's.
func (o *order) clear() {
	for sn, h := range o.held {
		h.place.Release()
		delete(o.held, sn)
	}
}
