package scsi

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/alua"
)

// PortGroup is one target port group through which a logical unit can be reached, with its one port.
type PortGroup = alua.Group

// States of a target port group.
const (
	PortOptimized    = alua.Optimized    // the path to use
	PortNonOptimized = alua.NonOptimized // does all the same
	PortUnavailable  = alua.Unavailable  // its gateway is down
)

// reportTargetPortGroups is REPORT TARGET PORT GROUPS (SPC-4 6.37), with or without the extended header. States are
// decided elsewhere and come with the mapping; a host can not set them, so there is no SET TARGET PORT GROUPS.
func reportTargetPortGroups(_ context.Context, a *attachment, c *Command) {
	format := c.CDB[1] >> 5
	if format > alua.Extended {
		a.refuse(c, InvalidFieldInCDB, cdbField(1, 7))
		return
	}
	c.reply(alua.Append(c.small[:0], a.groups, format), uint64(c.u32(6)))
}

// tpgsImplicit is the TPGS field of INQUIRY: access states change on their own, and hosts do not set them.
const tpgsImplicit = 1

// multiPort tells whether the logical unit has more than one target port.
func (a *attachment) multiPort() bool { return len(a.groups) > 1 }
