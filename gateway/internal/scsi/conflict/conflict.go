// Package conflict says what a command conflicts with on a logical unit that is reserved: the tables of SPC-4 (table 65) and
// SBC-3 (table 13), by operation code and service action.
//
//	           a nexus that is neither holder nor registered    registered, types 5 to 8
//	class      write exclusive      exclusive access            (holders may do everything)
//	Free       +                    +                           +      also under RESERVE of SPC-2
//	Query      +                    +                           +
//	Read       +                    conflict                    +
//	Write      conflict             conflict                    +
package conflict

import "github.com/ashlar-storage/ashlar/storage/reservation"

// Class returns the class of a command that is supported; its CDB is complete. What is in none of the lists is Read, or Write
// if it writes to the medium.
func Class(cdb []byte, writes bool) reservation.Class {
	action := cdb[1] & 0x1F
	switch cdb[0] {
	case 0x03, 0x12, 0x25, 0x4D, 0xA0: // REQUEST SENSE, INQUIRY, READ CAPACITY(10), LOG SENSE, REPORT LUNS
		return reservation.Free
	case 0x16, 0x17, 0x56, 0x57, 0x5F: // RESERVE, RELEASE, PERSISTENT RESERVE OUT: judged by the state itself
		return reservation.Free
	case 0x00, 0x5E: // TEST UNIT READY, PERSISTENT RESERVE IN
		return reservation.Query
	case 0x1B: // START STOP UNIT: starting is for everybody
		if cdb[4]&0xF1 == 0x01 {
			return reservation.Query
		}
		return reservation.Write
	case 0x07, 0x15, 0x1D, 0x35, 0x55, 0x91: // REASSIGN BLOCKS, MODE SELECT, SEND DIAGNOSTIC, SYNCHRONIZE CACHE
		return reservation.Write
	case 0x48: // SANITIZE
		return reservation.Write
	case 0x83: // EXTENDED COPY and WRITE USING TOKEN write; POPULATE TOKEN reads
		if action == 0x10 {
			return reservation.Read
		}
		return reservation.Write
	case 0x84: // RECEIVE COPY RESULTS and RECEIVE ROD TOKEN INFORMATION are about the initiator's own commands
		return reservation.Query
	case 0x9E: // READ CAPACITY(16)
		if action == 0x10 {
			return reservation.Free
		}
	case 0xA3: // REPORT TARGET PORT GROUPS
		if action == 0x0A {
			return reservation.Query
		}
	}
	if writes {
		return reservation.Write
	}
	return reservation.Read
}

// Permit is what a state lets one nexus do. Immutable.
type Permit struct {
	Of      *reservation.State
	allowed [reservation.Free + 1]bool
}

// NewPermit judges a nexus.
func NewPermit(s *reservation.State, n reservation.Nexus) *Permit {
	p := &Permit{Of: s}
	for c := range p.allowed {
		p.allowed[c] = s.Allows(n, reservation.Class(c))
	}
	return p
}

// Allows tells whether the nexus may execute commands of a class.
func (p *Permit) Allows(c reservation.Class) bool { return p.allowed[c] }
