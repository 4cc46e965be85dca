package gateway

import (
	"maps"
	"slices"
	"testing"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// TestExportedSecrets looks at the proof that an entry of an access list asks for. One that is damaged must not let anybody
// in who proves nothing.
func TestExportedSecrets(t *testing.T) {
	for _, c := range []struct {
		name    string
		entry   *metav1.Initiator
		open    bool
		secrets []string
		mutual  bool
	}{
		{"nothing", &metav1.Initiator{Name: "*"}, true, nil, false},
		{"one secret", &metav1.Initiator{ChapUser: "u", ChapSecret: "a"}, false, []string{"a"}, false},
		{"two secrets", &metav1.Initiator{ChapUser: "u", ChapSecret: "a", ChapOldSecret: "b"}, false, []string{"a", "b"}, false},
		{"mutual", &metav1.Initiator{ChapUser: "u", ChapSecret: "a", MutualUser: "m", MutualSecret: "c"}, false, []string{"a"}, true},
		{"no secret", &metav1.Initiator{ChapUser: "u"}, false, nil, false},
		{"no user", &metav1.Initiator{ChapSecret: "a"}, false, []string{"a"}, false},
		{"no mutual secret", &metav1.Initiator{ChapUser: "u", ChapSecret: "a", MutualUser: "m"}, false, []string{"a"}, false},
	} {
		a := newAuth(c.entry)
		if (a.Initiator == nil) != c.open || (a.Mutual != nil) != c.mutual {
			t.Errorf("%s: %+v", c.name, a)
			continue
		}
		if c.open {
			continue
		}
		if len(a.Initiator.Secrets) != len(c.secrets) {
			t.Errorf("%s: %d secrets", c.name, len(a.Initiator.Secrets))
			continue
		}
		for i, want := range c.secrets {
			if got := []byte(a.Initiator.Secrets[i]); string(got) != want {
				t.Errorf("%s: secret %d differs", c.name, i)
			}
		}
	}
}

func TestExportedRedirects(t *testing.T) {
	all := &metav1.Redirect{Address: "10.0.0.2:3260"}
	own := &metav1.Redirect{Gateway: "g1", Address: "10.0.0.3:3260", Permanent: true}
	for _, c := range []struct {
		name      string
		redirects []*metav1.Redirect
		self      uint64
		want      string
		permanent bool
	}{
		{"none", nil, 1, "", false},
		{"all", []*metav1.Redirect{all}, 1, "10.0.0.2:3260", false},
		{"all, to here", []*metav1.Redirect{all}, 2, "", false},
		{"own before all", []*metav1.Redirect{all, own}, 1, "10.0.0.3:3260", true},
		{"own before all, other order", []*metav1.Redirect{own, all}, 1, "10.0.0.3:3260", true},
		{"another's", []*metav1.Redirect{own}, 2, "", false},
		{"a gateway that is not listed", []*metav1.Redirect{all, own}, 9, "10.0.0.2:3260", false},
	} {
		e, err := newExports(&metav1.Exports{
			Gateways: []*metav1.Gateway{
				{Id: 1, Name: "g1", Portals: []string{"10.0.0.1:3260"}},
				{Id: 2, Name: "g2", Portals: []string{"[fd00::2]:3260", "10.0.0.2:3260"}},
			},
			Targets: []*metav1.Target{{Iqn: "iqn.2026-11.com.example:t", Redirects: c.redirects}},
		}, c.self)
		if err != nil {
			t.Fatal(err)
		}
		r := e.targets.Targets[0].Redirect
		if got := r != nil; got != (c.want != "") {
			t.Errorf("%s: redirect %+v", c.name, r)
			continue
		}
		if r != nil && (r.Address != c.want || r.Permanent != c.permanent) {
			t.Errorf("%s: redirect %+v", c.name, r)
		}
	}
}

// TestMovedTargets follows targets that are redirected, stay so, are redirected elsewhere, and are served again.
func TestMovedTargets(t *testing.T) {
	var before map[string]string
	to := func(address string) target.Target {
		return target.Target{Name: "a", Redirect: &login.Redirect{Address: address}}
	}
	for i, c := range []struct {
		next  target.Target
		names []string
		now   map[string]string
	}{
		{target.Target{Name: "a"}, nil, map[string]string{}},
		{to("x:1"), []string{"a"}, map[string]string{"a": "x:1"}},
		{to("x:1"), nil, map[string]string{"a": "x:1"}},
		{to("y:1"), []string{"a"}, map[string]string{"a": "y:1"}},
		{target.Target{Name: "a"}, nil, map[string]string{}},
		{to("y:1"), []string{"a"}, map[string]string{"a": "y:1"}},
	} {
		now, names := movedTargets(before, []target.Target{c.next, {Name: "b"}})
		if !slices.Equal(names, c.names) || !maps.Equal(now, c.now) {
			t.Errorf("step %d: %v, %v", i, now, names)
		}
		before = now
	}
}

// TestExportedGateways: all gateways are there in the order of their groups, this one is up whatever the metaserver thinks, and
// a target knows which of them send its initiators elsewhere.
func TestExportedGateways(t *testing.T) {
	e, err := newExports(&metav1.Exports{
		Gateways: []*metav1.Gateway{
			{Id: 3, Name: "g3", Tpgt: 3, RelativePort: 13, Portals: []string{"10.0.0.3:3260"}},
			{Id: 1, Name: "g1", Tpgt: 1, RelativePort: 11, Portals: []string{"10.0.0.1:3260"}},
			{Id: 2, Name: "g2", Tpgt: 2, RelativePort: 12, Portals: []string{"10.0.0.2:3260"}, Up: true},
		},
		Targets: []*metav1.Target{
			{Iqn: "iqn.2026-11.dev:a"},
			{Iqn: "iqn.2026-11.dev:b", Redirects: []*metav1.Redirect{{Address: "10.0.0.2:3260"}}},
			{Iqn: "iqn.2026-11.dev:c", Redirects: []*metav1.Redirect{{Gateway: "g2", Address: "10.0.0.1:3260"}}},
		},
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := []target.Gateway{
		{ID: 1, Port: target.Port{Group: 1, RelativeID: 11}, Up: true},
		{ID: 2, Port: target.Port{Group: 2, RelativeID: 12}, Up: true},
		{ID: 3, Port: target.Port{Group: 3, RelativeID: 13}},
	}
	if !slices.Equal(e.targets.Gateways, want) {
		t.Errorf("gateways %+v", e.targets.Gateways)
	}
	for i, want := range [][]uint64{nil, {3, 1}, {2}} {
		if got := e.targets.Targets[i].Elsewhere; !slices.Equal(got, want) {
			t.Errorf("target %d: elsewhere %v, want %v", i, got, want)
		}
	}
}
