package session

import (
	"slices"
	"sync/atomic"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
)

// resetting is a task management function, and for one that resets logical units the wait of its answer: what came before it on
// the paths through other processes is over when it is answered. The session goes on meanwhile.
type resetting struct {
	conn     *Conn
	function pdu.TMFFunction
	many     bool // it ended the tasks of others too
	answer   pdu.TMFResponse
	begun    bool
	done     atomic.Bool
}

// resettingMax bounds the resets of a session that wait for their answers; one more is rejected.
const resettingMax = 16

// begin returns what is to be called, on any goroutine, when the reset may be answered.
func (w *resetting) begin() func() {
	w.begun = true
	s := w.conn.s
	return func() {
		w.done.Store(true)
		if s.cfg.Wake != nil {
			s.cfg.Wake()
		}
	}
}

// respond queues the answer.
func (w *resetting) respond() {
	c := w.conn
	if !c.closing {
		c.respondTMF(w.answer, w.many)
	}
	if !c.closing && w.function == pdu.TMFTargetColdReset && w.answer.Result == pdu.TMFComplete {
		c.s.cfg.Env.ColdReset()
		for _, o := range c.s.conns {
			o.close()
		}
	}
}

// answerResets queues the answers of the resets that may be answered.
func (s *Session) answerResets() {
	s.resetting = slices.DeleteFunc(s.resetting, func(w *resetting) bool {
		done := w.done.Load()
		if done {
			w.respond()
		}
		return done
	})
}
