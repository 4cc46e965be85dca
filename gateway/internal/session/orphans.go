package session

import "github.com/ashlar-storage/ashlar/gateway/internal/pdu"

// orphansMax bounds the transfers of aborted tasks that a session remembers; the oldest is forgotten first.
const orphansMax = 1024

// orphans are the transfers that were asked for by R2T and whose tasks were aborted meanwhile. The initiator may go on to
// send the data, or stop (RFC 7143 sections 4.2.3.3 and 4.2.3.4), and may use the task's tag for another command, so the
// data are known by their Target Transfer Tag, which no later transfer has.
type orphans struct {
	open  map[pdu.TTT]struct{}
	order []pdu.TTT // oldest first; may have some that are not open any more
}

// add remembers a transfer.
func (o *orphans) add(ttt pdu.TTT) {
	if o.open == nil {
		o.open = make(map[pdu.TTT]struct{})
	}
	if len(o.order) >= orphansMax {
		delete(o.open, o.order[0])
		o.order = append(o.order[:0], o.order[1:]...)
	}
	o.open[ttt] = struct{}{}
	o.order = append(o.order, ttt)
}

// take reports whether a Data-Out belongs to one of the transfers. The last of its sequence ends it.
func (o *orphans) take(ttt pdu.TTT, final bool) bool {
	if len(o.open) == 0 {
		return false
	}
	_, ok := o.open[ttt]
	if ok && final {
		delete(o.open, ttt)
	}
	return ok
}

// has tells whether a tag is in use.
func (o *orphans) has(ttt pdu.TTT) bool {
	_, ok := o.open[ttt]
	return ok
}
