package copyset

import (
	"maps"

	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Verdict is what a View says about a request.
type Verdict uint8

// The verdicts.
const (
	// Pass: the request's fence and access generation are the current ones.
	Pass Verdict = iota
	// Behind: the request has a newer fence or access generation, which has to be raised before it is served.
	Behind
	// RefuseFence and RefuseAccess: the request is stale; the view has the newer number.
	RefuseFence
	RefuseAccess
)

// View is the fences of a copyset at one applied index. It is never changed, so any goroutine may read it.
type View struct {
	volumes map[layout.VolumeID]*volumeView
}

type volumeView struct {
	access  layout.AccessGeneration
	deleted bool
	fences  map[layout.InitiatorID]layout.Fence
}

// Check judges a request of an initiator.
func (v *View) Check(vol layout.VolumeID, ini layout.InitiatorID, f layout.Fence, a layout.AccessGeneration) (Verdict, Outcome) {
	vv := v.volumes[vol]
	if vv == nil {
		return Behind, Outcome{}
	}
	if vv.deleted {
		return RefuseAccess, Outcome{Code: StaleAccess, Access: layout.DeletedAccess}
	}
	have := vv.fences[ini]
	order := f.Compare(have)
	switch {
	case order < 0:
		return RefuseFence, Outcome{Code: StaleFence, Fence: have, Access: vv.access}
	case a < vv.access:
		return RefuseAccess, Outcome{Code: StaleAccess, Fence: have, Access: vv.access}
	case order > 0 || a > vv.access:
		return Behind, Outcome{}
	}
	return Pass, Outcome{}
}

// Access returns the volume's access generation.
func (v *View) Access(vol layout.VolumeID) layout.AccessGeneration {
	if vv := v.volumes[vol]; vv != nil {
		if vv.deleted {
			return layout.DeletedAccess
		}
		return vv.access
	}
	return 0
}

// View returns the fences as of the last applied entry. It costs nothing when they did not change.
func (s *State) View() *View {
	if len(s.stale) == 0 && s.view != nil {
		return s.view
	}
	v := &View{}
	if s.view == nil {
		v.volumes = make(map[layout.VolumeID]*volumeView, len(s.volumes))
		for id, vol := range s.volumes {
			v.volumes[id] = vol.view()
		}
	} else {
		v.volumes = maps.Clone(s.view.volumes)
		for id := range s.stale {
			v.volumes[id] = s.volumes[id].view()
		}
	}
	clear(s.stale)
	s.view = v
	return v
}

func (v *volume) view() *volumeView {
	vv := &volumeView{access: v.access, deleted: v.deleted, fences: make(map[layout.InitiatorID]layout.Fence, len(v.initiators))}
	for id, ini := range v.initiators {
		vv.fences[id] = ini.fence
	}
	return vv
}
