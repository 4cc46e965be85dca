// Package alua encodes the data of REPORT TARGET PORT GROUPS (SPC-4 6.37). It has no state.
//
//	length only   LENGTH(4) { group }...
//	extended      LENGTH(4) FORMAT(6..4)=001b  IMPLICIT TRANSITION TIME  0(2) { group }...
//	group         PREF(7) STATE(3..0)  supported states  GROUP(2)  0  STATUS CODE  vendor  PORT COUNT { 0(2) PORT(2) }...
//
// A group here has one port. LENGTH is what follows it, the time is in seconds.
package alua

import "encoding/binary"

// State is an asymmetric access state (SPC-4 5.15.2.4). There is no state of transition: a state changes at once.
type State byte

// The states.
const (
	Optimized    State = 0x0 // active/optimized: the path to use
	NonOptimized State = 0x1 // active/non-optimized: does all the same
	Unavailable  State = 0x3 // takes no commands for the medium
)

// supported is the byte of the states that a group can have: U_SUP, AN_SUP, AO_SUP.
const supported = 0x0B

// Values of PARAMETER DATA FORMAT in the CDB.
const (
	LengthOnly = 0
	Extended   = 1
)

// transitionTime is how long a host waits for a change of states that it saw under way, in seconds. 0 would have it
// take a guess of its own (Linux: 60 s).
const transitionTime = 10

// Group is one target port group with its one port.
type Group struct {
	Tag   uint16 // target port group
	Port  uint16 // relative target port identifier
	State State
}

// Append appends the data for groups in a format, LengthOnly or Extended.
func Append(p []byte, groups []Group, format byte) []byte {
	start := len(p)
	p = append(p, 0, 0, 0, 0)
	if format == Extended {
		p = append(p, Extended<<4, transitionTime, 0, 0)
	}
	for _, g := range groups {
		p = append(p, byte(g.State), supported)
		p = binary.BigEndian.AppendUint16(p, g.Tag)
		p = append(p, 0, 0, 0, 1, 0, 0)
		p = binary.BigEndian.AppendUint16(p, g.Port)
	}
	binary.BigEndian.PutUint32(p[start:], uint32(len(p)-start-4))
	return p
}
