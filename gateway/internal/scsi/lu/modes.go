package lu

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/mode"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
)

// Settings returns what MODE SELECT has changed, as it is now.
func (u *Unit) Settings() mode.Settings { return mode.Settings(u.settings.Load()) }

// Modes returns the logical unit as its mode pages describe it now.
func (u *Unit) Modes() mode.Unit {
	return mode.Unit{Now: u.Settings(), Default: u.defaultModes(), SenseMax: sense.Max}
}

// SelectModes takes over the settings that a parameter list of MODE SELECT asks for by the nexus by, and tells the others
// if any changed; see mode.Unit.SelectList.
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

// defaultModes are the settings that a logical unit begins with and that a reset takes it back to.
func (u *Unit) defaultModes() mode.Settings {
	if u.config.DescriptorSense {
		return mode.DescriptorSense
	}
	return 0
}
