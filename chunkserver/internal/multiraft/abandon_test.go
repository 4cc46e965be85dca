package multiraft

import (
	"testing"

	"github.com/ashlar-storage/ashlar/chunkserver/internal/proposals"
)

// replied notes the reply to a proposal.
type replied struct{ r Reply }

func (w *replied) Done(r Reply) { w.r = r }

// TestAbandonedProposalIsOpen: of what was proposed nobody says that it was not.
func TestAbandonedProposalIsOpen(t *testing.T) {
	for given, want := range map[Status]Status{NotLeader: NotReady, Failed: Failed} {
		g := &Group{proposals: proposals.New[Reply](proposals.Limits{Count: 9, Bytes: 9, TotalBytes: 9}, &proposals.Total{})}
		w := &replied{}
		if p, ok := g.proposals.Admit(7, 1, w); !ok || !g.proposals.Expect(p) {
			t.Fatal("not expected")
		}
		g.abandon(Reply{Status: given, Leader: 3}, false)
		if w.r.Status != want || g.proposals.Take(7) != nil {
			t.Errorf("given %v: %+v", given, w.r)
		}
	}
}
