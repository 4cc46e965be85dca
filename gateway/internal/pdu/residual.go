package pdu

import "math"

// ResidualKind says in which direction a transfer missed what the initiator expected.
type ResidualKind uint8

// The kinds of a Residual.
const (
	ResidualNone      ResidualKind = iota
	ResidualUnderflow              // U: Count bytes of the expected were not transferred
	ResidualOverflow               // O: Count bytes more would have been transferred had they been expected
)

// Residual is a residual count with its O or U bit, RFC 7143 section 11.4.5. Count is in bytes and 0 iff Kind is
// ResidualNone.
type Residual struct {
	Kind  ResidualKind
	Count uint32
}

// ResidualOf returns the residual of a command that expected to transfer expected bytes and had actual bytes to
// transfer. An overflow that does not fit 32 bits is reported as the most that does.
func ResidualOf(expected uint32, actual uint64) Residual {
	switch e := uint64(expected); {
	case actual < e:
		return Residual{ResidualUnderflow, uint32(e - actual)}
	case actual > e:
		return Residual{ResidualOverflow, uint32(min(actual-e, math.MaxUint32))}
	}
	return Residual{}
}

func (r Residual) flags(over, under byte) byte {
	switch r.Kind {
	case ResidualOverflow:
		return over
	case ResidualUnderflow:
		return under
	}
	return 0
}

func parseResidual(over, under bool, count uint32) (Residual, error) {
	switch {
	case over && under:
		return Residual{}, formatErrorf(RejectInvalidPDUField, "residual overflow and underflow")
	case over:
		return Residual{ResidualOverflow, count}, nil
	case under:
		return Residual{ResidualUnderflow, count}, nil
	}
	return Residual{}, nil
}
