package reservation

// Settings are what hosts can change in the Control mode page (SPC-4 7.5.8), one bit each.
type Settings byte

// The settings.
const (
	DescriptorSense Settings = 1 << iota // D_SENSE: sense data in descriptor format
	WriteProtect                         // SWP: the medium is write protected
)

// Modes are the settings of a logical unit, for all nexuses: as they are, and as they were saved, which a reset takes them
// back to.
type Modes struct {
	Now   Settings `json:"now,omitempty"`
	Saved Settings `json:"saved,omitempty"`
}

// selectModes is MODE SELECT (SPC-4 6.11). The other nexuses are told of a change.
func (s *State) selectModes(r *Request) Status {
	if !s.Allows(r.Nexus, Write) {
		return Conflict
	}
	if s.Modes.Now != r.Settings {
		s.add(Event{Attention: ModesChanged, Everybody: true, By: r.Nexus})
	}
	s.Modes.Now = r.Settings
	if r.Save {
		s.Modes.Saved = r.Settings
	}
	return Good
}

// protects tells whether next protects the medium and s does not.
func (s *State) protects(next *State) bool {
	return next.Modes.Now&^s.Modes.Now&WriteProtect != 0
}
