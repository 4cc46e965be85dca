package session

import (
	"slices"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// unit is the task set of one logical unit as far as it comes from this session (SAM-5 section 8; the task sets of
// sessions do not order each other). A task enters it in its CmdSN turn. It may run at once unless its attribute, or an
// older ORDERED task, says that it waits.
type unit struct {
	enabled   int     // tasks that entered, do not wait, and have not ended
	exclusive *Task   // the ORDERED task among them; then enabled counts only it and HEAD OF QUEUE tasks
	waiting   []*Task // in the order in which they entered
	compares  int     // COMPARE AND WRITE commands whose outcome the initiator may not know
}

// enter puts t into the set.
func (u *unit) enter(t *Task) {
	t.entered = true
	switch {
	case t.attr == pdu.AttrHeadOfQueue:
		u.enabled++
	case len(u.waiting) > 0 || u.exclusive != nil || t.attr == pdu.AttrOrdered && u.enabled > 0:
		t.waits = true
		u.waiting = append(u.waiting, t)
	default:
		u.enable(t)
	}
}

func (u *unit) enable(t *Task) {
	u.enabled++
	t.waits = false
	if t.attr == pdu.AttrOrdered {
		u.exclusive = t
	}
}

// leave takes t out of the set and returns the tasks that may run now because of it.
func (u *unit) leave(t *Task) []*Task {
	if !t.entered {
		return nil
	}
	t.entered = false
	if t.waits {
		t.waits = false
		u.waiting = slices.DeleteFunc(u.waiting, func(w *Task) bool { return w == t })
	} else {
		u.enabled--
		if u.exclusive == t {
			u.exclusive = nil
		}
	}
	n := 0
	for n < len(u.waiting) && u.exclusive == nil {
		w := u.waiting[n]
		if w.attr == pdu.AttrOrdered && u.enabled > 0 {
			break
		}
		u.enable(w)
		n++
	}
	if n == 0 {
		return nil
	}
	woken := slices.Clone(u.waiting[:n])
	u.waiting = slices.Delete(u.waiting, 0, n)
	return woken
}
