package prwire

import (
	"encoding/binary"

	"github.com/ashlar-storage/ashlar/storage/reservation"
)

// header is PRGENERATION and ADDITIONAL LENGTH, which ends patches.
func header(p []byte, s *reservation.State) []byte {
	p = binary.BigEndian.AppendUint32(p, s.Generation)
	return append(p, 0, 0, 0, 0)
}

// end sets ADDITIONAL LENGTH of the data that begins at p[0].
func end(p []byte) []byte {
	binary.BigEndian.PutUint32(p[4:], uint32(len(p)-8))
	return p
}

// ReadKeys returns the data of READ KEYS (SPC-4 6.15.2).
func ReadKeys(s *reservation.State) []byte {
	p := header(make([]byte, 0, 8+8*len(s.Registrations)), s)
	for _, r := range s.Registrations {
		p = binary.BigEndian.AppendUint64(p, uint64(r.Key))
	}
	return end(p)
}

// ReadReservation returns the data of READ RESERVATION (SPC-4 6.15.3): one reservation of the whole logical unit, or none.
func ReadReservation(s *reservation.State) []byte {
	p := header(make([]byte, 0, 24), s)
	if s.Type != 0 {
		p = binary.BigEndian.AppendUint64(p, uint64(s.HolderKey()))
		p = append(p, 0, 0, 0, 0, 0, byte(s.Type), 0, 0)
	}
	return end(p)
}

// Bytes of REPORT CAPABILITIES (SPC-4 6.15.4).
const (
	sipC  = 0x08 // SPEC_I_PT is supported
	atpC  = 0x04 // ALL_TG_PT is supported
	ptplC = 0x01 // persistence through a loss of power is supported
	tmv   = 0x80 // the type mask is valid
	// allowCommands 011b: TEST UNIT READY is for everybody; MODE SENSE, REPORT SUPPORTED OPERATION CODES and their like
	// are, under a write exclusive reservation.
	allowCommands = 0x30
	ptplA         = 0x01 // persistence is active

	typesLow  = 0xEA // WR_EX_AR EX_AC_RO WR_EX_RO EX_AC WR_EX
	typesHigh = 0x01 // EX_AC_AR
)

// ReportCapabilities returns the data of REPORT CAPABILITIES.
func ReportCapabilities(s *reservation.State) []byte {
	active := byte(0)
	if s.APTPL {
		active = ptplA
	}
	return []byte{0, 8, sipC | atpC | ptplC, tmv | allowCommands | active, typesLow, typesHigh, 0, 0}
}

// ReadFullStatus returns the data of READ FULL STATUS (SPC-4 6.15.5).
func ReadFullStatus(s *reservation.State) []byte {
	p := header(make([]byte, 0, 8+96*len(s.Registrations)), s)
	for _, r := range s.Registrations {
		start := len(p)
		p = binary.BigEndian.AppendUint64(p, uint64(r.Key))
		p = append(p, make([]byte, 16)...)
		if s.Holds(r) {
			p[start+12] = 0x01 // R_HOLDER
			p[start+13] = byte(s.Type)
		}
		binary.BigEndian.PutUint16(p[start+18:], r.Port)
		p = AppendTransportID(p, r.Nexus)
		binary.BigEndian.PutUint32(p[start+20:], uint32(len(p)-start-24))
	}
	return end(p)
}
