package gateway

import (
	"slices"

	"go.uber.org/zap"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// newRedirect returns where the gateway here sends the initiators of a target, nil for nowhere. Its own redirect goes
// before the one for all gateways; the gateway that is meant by a redirect serves the target.
func newRedirect(redirects []*metav1.Redirect, here *metav1.Gateway) *login.Redirect {
	var found *metav1.Redirect
	for _, r := range redirects {
		if r.GetGateway() == here.GetName() || r.GetGateway() == "" && found == nil {
			found = r
		}
	}
	if found == nil || slices.Contains(here.GetPortals(), found.GetAddress()) {
		return nil
	}
	return &login.Redirect{Permanent: found.GetPermanent(), Address: found.GetAddress()}
}

// move asks the initiators that are here to log out from the targets of next that are now sent elsewhere: they log in again
// and are told where. It is called with each of the exports, one after the other.
func (g *Gateway) move(next []target.Target) {
	moved, names := movedTargets(g.moved, next)
	g.moved = moved
	p := g.portal.Load()
	if len(names) == 0 || p == nil {
		return
	}
	g.log.Info("initiators are asked to leave targets that are redirected", zap.Strings("targets", names), zap.Int("sessions", p.Move(names)))
}

// movedTargets returns the addresses that targets are redirected to, by target, and the names of those that were not, or to
// somewhere else.
func movedTargets(before map[string]string, next []target.Target) (now map[string]string, names []string) {
	now = map[string]string{}
	for i := range next {
		t := &next[i]
		if t.Redirect == nil {
			continue
		}
		now[t.Name] = t.Redirect.Address
		if before[t.Name] != t.Redirect.Address {
			names = append(names, t.Name)
		}
	}
	return now, names
}
