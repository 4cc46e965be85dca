package lu

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
)

// Settings returns what MODE SELECT has changed, as it is now.
func (u *Unit) Settings() mode.Settings { return mode.Settings(u.settings.Load()) }

// Modes returns the logical unit as its mode pages describe it now. Settings can be saved where all processes that serve it know
// of them.
func (u *Unit) Modes() mode.Unit {
	m := mode.Unit{Now: u.Settings(), Default: u.defaultModes(), SenseMax: sense.Max}
	if r := u.Reservations(); r != nil {
		m.Saves, m.Saved = true, r.State.Modes.Saved
	}
	return m
}

// SelectModes takes over the settings that a parameter list of MODE SELECT asks for by the nexus by, and tells the others
// if any changed; see mode.Unit.SelectList. It is for a logical unit that this process serves alone.
func (u *Unit) SelectModes(by *Peer, m mode.Medium, list []byte, ten bool) *mode.Fault {
	u.mu.Lock()
	now := u.Modes()
	next, fault := now.SelectList(m, list, ten)
	if fault == nil {
		u.settings.Store(uint32(next))
	}
	u.mu.Unlock()
	if fault == nil && next != now.Now {
		u.Attention(sense.AttentionModeChanged, by)
	}
	return fault
}

// resetModes takes the settings back to what a reset leaves of them. The caller holds mu.
func (u *Unit) resetModes() {
	m := u.Modes()
	if m.Saves {
		m.Default = m.Saved
	}
	u.settings.Store(uint32(m.Default))
}

// defaultModes are the settings that a logical unit begins with.
func (u *Unit) defaultModes() mode.Settings {
	if u.config.DescriptorSense {
		return mode.DescriptorSense
	}
	return 0
}
