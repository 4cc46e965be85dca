package multiraft

import "testing"

// replied notes the reply to a proposal.
type replied struct{ r Reply }

func (w *replied) Done(r Reply) { w.r = r }

// TestAbandonedProposalIsOpen: of what was proposed nobody says that it was not.
func TestAbandonedProposalIsOpen(t *testing.T) {
	for given, want := range map[Status]Status{NotLeader: NotReady, Failed: Failed} {
		g := &Group{host: &Host{}}
		g.waiters.m = map[uint64]*proposal{}
		w := &replied{}
		if !g.expect(&proposal{id: 7, w: w}) {
			t.Fatal("not expected")
		}
		g.abandon(Reply{Status: given, Leader: 3}, nil)
		if w.r.Status != want || g.take(7) != nil {
			t.Errorf("given %v: %+v", given, w.r)
		}
	}
}
