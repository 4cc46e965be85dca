// Package orphan remembers the transfers of aborted tasks.
package orphan

import "github.com/ashlar-storage/ashlar/gateway/internal/pdu"

// Max bounds the transfers that a Set remembers; the oldest is forgotten first.
const Max = 1024

// Set is the transfers that were asked for by R2T and whose tasks were aborted meanwhile. The initiator may go on to
// send the data, or stop (RFC 7143 sections 4.2.3.3 and 4.2.3.4), and may use the task's tag for another command, so the
// data are known by their Target Transfer Tag, which no later transfer has. The zero value is empty.
type Set struct {
	open  map[pdu.TTT]struct{}
	order []pdu.TTT // oldest first; may have some that are not open any more
}

// Add remembers a transfer.
func (o *Set) Add(ttt pdu.TTT) {
	if o.open == nil {
		o.open = make(map[pdu.TTT]struct{})
	}
	if len(o.order) >= Max {
		delete(o.open, o.order[0])
		o.order = append(o.order[:0], o.order[1:]...)
	}
	o.open[ttt] = struct{}{}
	o.order = append(o.order, ttt)
}

// Take reports whether a Data-Out belongs to one of the transfers. The last of its sequence ends it.
func (o *Set) Take(ttt pdu.TTT, final bool) bool {
	if len(o.open) == 0 {
		return false
	}
	_, ok := o.open[ttt]
	if ok && final {
		delete(o.open, ttt)
	}
	return ok
}

// Has tells whether a tag is in use.
func (o *Set) Has(ttt pdu.TTT) bool {
	_, ok := o.open[ttt]
	return ok
}
