package proposals

import "testing"

type replies []string

func (r *replies) Done(s string) { *r = append(*r, s) }

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		what   string
		limits Limits
		want   int
	}{
		{"count", Limits{Count: 2, Bytes: 100, TotalBytes: 100}, 2},
		{"bytes", Limits{Count: 9, Bytes: 30, TotalBytes: 100}, 3},
		{"bytes of all groups", Limits{Count: 9, Bytes: 100, TotalBytes: 45}, 3}, // 10 are another group's
	} {
		total := &Total{}
		other := New[string](Limits{9, 100, 100}, total)
		theirs, _ := other.Admit(1, 10, &replies{})
		s, got := New[string](c.limits, total), &replies{}
		var admitted []*Proposal[string]
		for id := range uint64(9) {
			p, ok := s.Admit(id, 10, got)
			if !ok {
				s.Finish(p, "busy")
				break
			}
			admitted = append(admitted, p)
		}
		if len(admitted) != c.want || len(*got) != 1 {
			t.Errorf("%s: %d were admitted, %v", c.what, len(admitted), *got)
		}
		for _, p := range append(admitted, nil) {
			if p == nil {
				other.Finish(theirs, "")
				continue
			}
			s.Finish(p, "done")
		}
		if n, b := s.Waiting(); n != 0 || b != 0 || total.Bytes() != 0 {
			t.Errorf("%s: %d of %d bytes are still counted, %d in all", c.what, n, b, total.Bytes())
		}
	}
}

// TestOnce: each is answered once, whoever is quicker.
func TestOnce(t *testing.T) {
	s, got := New[string](Limits{9, 99, 99}, &Total{}), &replies{}
	for id := range uint64(3) {
		p, _ := s.Admit(id, 1, got)
		if !s.Expect(p) {
			t.Fatal("not expected")
		}
	}
	s.Finish(s.Take(1), "applied")
	if s.Take(1) != nil || len(s.mu.m) != 2 {
		t.Error("taken twice")
	}
	s.Abandon("lost", false)
	if s.Take(0) != nil || len(*got) != 3 {
		t.Errorf("after they were abandoned: %v", *got)
	}
	p, _ := s.Admit(7, 1, got)
	if !s.Expect(p) {
		t.Error("another term, and nothing is expected")
	}
	s.Abandon("stopped", true)
	if p, _ = s.Admit(8, 1, got); s.Expect(p) {
		t.Error("expected after the end")
	}
	s.Finish(p, "stopped")
	if n, _ := s.Waiting(); n != 0 || len(*got) != 5 {
		t.Errorf("%d wait, %v", n, *got)
	}
}
