package selftest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// reservationChecks are about reservations, which two hosts fight with.
func reservationChecks() map[string]check {
	return map[string]check{
		"pr in": {
			area: "PR", title: "READ KEYS, READ RESERVATION, REPORT CAPABILITIES", want: "answered",
			advice: "Clusters need persistent reservations.", run: reserveIn,
		},
		"pr cluster": {
			area: "PR", title: "register, reserve (type 5), conflict, preempt, clear, with two hosts", want: "as cluster validation wants it",
			advice: "A failover cluster does not accept the disk.", writes: true, run: reserveCluster,
		},
		"pr paths": {
			area: "PR", title: "registration of two paths of one host", want: "both keys are listed; both paths write under the reservation",
			advice: "Multipath software registers every path of the host.", writes: true, run: reservePaths,
		},
		"pr reset": {
			area: "PR", title: "reservation after LOGICAL UNIT RESET", want: "still there", advice: "A reset must not free another host's disk.",
			writes: true, run: reserveReset,
		},
		"pr types": {
			area: "PR", title: "all types", want: "types 1, 3, 5, 6, 7 and 8 can be reserved and released",
			advice: "Clusters of virtual machines use type 7, others type 5.", writes: true, run: reserveTypes,
		},
		"reserve 6": {
			area: "PR", title: "RESERVE(6) and RELEASE(6)", want: "other hosts get RESERVATION CONFLICT until the release",
			advice: "Some versions of ESXi format a datastore with it.", writes: true, run: reserve6,
		},
	}
}

// Keys of the reservations of a run.
const (
	keyA = 0xa511a4a511a40001
	keyB = 0xa511a4a511a40002
)

// Service actions of PERSISTENT RESERVE OUT (SPC-4 6.14.2).
const (
	prRegister = 0
	prReserve  = 1
	prRelease  = 2
	prClear    = 3
	prPreempt  = 4
	prIgnore   = 6
)

// prOut sends PERSISTENT RESERVE OUT and returns the status of a RESERVATION CONFLICT as an error too.
func prOut(h *wire.Host, action, kind byte, key, next uint64) error {
	out := make([]byte, 24)
	binary.BigEndian.PutUint64(out, key)
	binary.BigEndian.PutUint64(out[8:], next)
	return again(h, []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, out)
}

// again runs a command, and once more for each unit attention.
func again(h *wire.Host, cdb, out []byte) error {
	var err error
	for range 8 {
		err = runOn(h, cdb, out)
		var s *wire.StatusError
		if !errors.As(err, &s) || s.Sense.Key != 6 {
			return err
		}
	}
	return err
}

// prIn reads what PERSISTENT RESERVE IN says.
func prIn(h *wire.Host, action byte) ([]byte, error) {
	if err := h.Ready(); err != nil && !conflict(err) {
		return nil, err
	}
	b, err := dataOf(h, []byte{0x5e, action, 0, 0, 0, 0, 0, 0x10, 0, 0}, 4096)
	if err == nil && len(b) < 8 {
		err = fmt.Errorf("%d bytes", len(b))
	}
	return b, err
}

// conflict tells whether a command met a reservation.
func conflict(err error) bool {
	var s *wire.StatusError
	return errors.As(err, &s) && s.Status == wire.ReservationConflict
}

// keysOf lists the registered keys.
func keysOf(h *wire.Host) ([]uint64, error) {
	b, err := prIn(h, 0)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for b = b[8:]; len(b) >= 8; b = b[8:] {
		out = append(out, binary.BigEndian.Uint64(b))
	}
	return out, nil
}

func reserveIn(p *probe) (string, error) {
	keys, err := keysOf(p.h)
	if err != nil {
		return "", needed("READ KEYS", err)
	}
	held, err := prIn(p.h, 1)
	if err != nil {
		return "", needed("READ RESERVATION", err)
	}
	found := fmt.Sprintf("%d keys, reserved: %v", len(keys), len(held) > 8)
	b, err := prIn(p.h, 2)
	if err != nil {
		return "", needed("REPORT CAPABILITIES", err)
	}
	if b[3]&0x80 != 0 {
		found += fmt.Sprintf(", type mask %02x%02x", b[4], b[5])
	}
	return found, nil
}

// clean removes the reservations of a run.
func clean(hs ...*wire.Host) {
	for i, h := range hs {
		for _, key := range []uint64{keyA, keyB} {
			_ = prOut(h, prClear, 0, key, 0) // of no use without a registration
		}
		_ = hs[i].Ready()
	}
}

// hosts are this host, and another one, which is another session of the same name if no other may log in.
func (p *probe) hosts() (*wire.Host, *wire.Host, error) {
	other, err := p.openOther()
	if err != nil {
		other, err = p.open()
	}
	return p.h, other, err
}

// blockWrite writes one block of the allowed range.
func (p *probe) blockWrite(h *wire.Host) error {
	return again(h, rw16(opWrite16, 0, p.at(0), 1), filled(p.blockLen, 0x42))
}

// stepper runs steps until one goes wrong.
type stepper struct{ err error }

func (s *stepper) do(what string, f func() error) {
	if s.err == nil {
		if err := f(); err != nil {
			s.err = fmt.Errorf("%s: %w", what, err)
		}
	}
}

// conflicts wants a RESERVATION CONFLICT.
func (s *stepper) conflicts(what string, f func() error) {
	s.do(what, func() error {
		if err := f(); !conflict(err) {
			return fmt.Errorf("%w instead of RESERVATION CONFLICT", orGood(err))
		}
		return nil
	})
}

func reserveCluster(p *probe) (string, error) {
	a, b, err := p.hosts()
	if err != nil {
		return "", err
	}
	defer clean(a, b)
	const kind = 5 // write exclusive, registrants only
	var s stepper
	s.do("register", func() error { return needed("PERSISTENT RESERVE OUT", prOut(a, prIgnore, 0, 0, keyA)) })
	s.do("reserve", func() error { return prOut(a, prReserve, kind, keyA, 0) })
	s.do("write of the owner", func() error { return p.blockWrite(a) })
	s.conflicts("write of an unregistered host", func() error { return p.blockWrite(b) })
	s.do("read of an unregistered host", func() error {
		_, err := dataOf(b, rw16(opRead16, 0, p.at(0), 1), p.blockLen)
		return err
	})
	s.conflicts("reserve without registration", func() error { return prOut(b, prReserve, kind, keyB, 0) })
	s.do("registration of the second host", func() error { return prOut(b, prRegister, 0, 0, keyB) })
	s.do("write of a registered host", func() error { return p.blockWrite(b) })
	s.conflicts("second reservation", func() error { return prOut(b, prReserve, kind, keyB, 0) })
	s.do("preempt", func() error { return prOut(b, prPreempt, kind, keyB, keyA) })
	s.conflicts("write of the host that lost", func() error { return p.blockWrite(a) })
	s.do("read reservation", func() error { return heldBy(b, keyB, kind) })
	s.do("release", func() error { return prOut(b, prRelease, kind, keyB, 0) })
	s.do("write after the release", func() error { return p.blockWrite(a) })
	s.do("clear", func() error { return prOut(b, prClear, 0, keyB, 0) })
	s.do("keys after the clear", func() error {
		if keys, err := keysOf(a); err != nil || len(keys) != 0 {
			return fmt.Errorf("%d keys: %w", len(keys), orGood(err))
		}
		return nil
	})
	return "as it should be", s.err
}

// heldBy wants a reservation with a key and a type.
func heldBy(h *wire.Host, key uint64, kind byte) error {
	b, err := prIn(h, 1)
	if err != nil {
		return err
	}
	if len(b) < 24 || binary.BigEndian.Uint64(b[8:]) != key || b[21] != kind {
		return fmt.Errorf("the reservation is % x", b[8:])
	}
	return nil
}

func reservePaths(p *probe) (string, error) {
	h, err := p.open()
	if err != nil {
		return "", err
	}
	defer clean(p.h, h)
	var s stepper
	s.do("first path", func() error { return needed("PERSISTENT RESERVE OUT", prOut(p.h, prIgnore, 0, 0, keyA)) })
	s.do("second path", func() error { return prOut(h, prIgnore, 0, 0, keyA) })
	s.do("keys", func() error {
		keys, err := keysOf(h)
		n := 0
		for _, k := range keys {
			if k == keyA {
				n++
			}
		}
		if err == nil && n != 2 {
			err = fmt.Errorf("the key is listed %d times", n)
		}
		return err
	})
	s.do("reserve", func() error { return prOut(p.h, prReserve, 5, keyA, 0) })
	s.do("write over the first path", func() error { return p.blockWrite(p.h) })
	s.do("write over the second path", func() error { return p.blockWrite(h) })
	s.do("unregister the second path", func() error { return prOut(h, prRegister, 0, keyA, 0) })
	s.do("reservation stays", func() error { return heldBy(p.h, keyA, 5) })
	return "both paths", s.err
}

func reserveReset(p *probe) (string, error) {
	a, b, err := p.hosts()
	if err != nil {
		return "", err
	}
	defer clean(a, b)
	var s stepper
	s.do("register", func() error { return needed("PERSISTENT RESERVE OUT", prOut(a, prIgnore, 0, 0, keyA)) })
	s.do("reserve", func() error { return prOut(a, prReserve, 5, keyA, 0) })
	s.do("reset by the other host", func() error {
		answer, err := manage(b, wire.LogicalUnitReset, wire.Reserved, 0)
		if err == nil && answer != wire.TMFComplete {
			err = fmt.Errorf("response %d", answer)
		}
		return err
	})
	s.do("reservation", func() error { return heldBy(a, keyA, 5) })
	s.conflicts("write of the other host", func() error { return p.blockWrite(b) })
	return "still there", s.err
}

func reserveTypes(p *probe) (string, error) {
	defer clean(p.h)
	var s stepper
	s.do("register", func() error { return needed("PERSISTENT RESERVE OUT", prOut(p.h, prIgnore, 0, 0, keyA)) })
	for _, kind := range []byte{1, 3, 5, 6, 7, 8} {
		s.do(fmt.Sprintf("reserve, type %d", kind), func() error { return prOut(p.h, prReserve, kind, keyA, 0) })
		s.do(fmt.Sprintf("write under type %d", kind), func() error { return p.blockWrite(p.h) })
		s.do(fmt.Sprintf("release, type %d", kind), func() error { return prOut(p.h, prRelease, kind, keyA, 0) })
	}
	return "1 3 5 6 7 8", s.err
}

func reserve6(p *probe) (string, error) {
	a, b, err := p.hosts()
	if err != nil {
		return "", err
	}
	reserve, release := []byte{0x16, 0, 0, 0, 0, 0}, []byte{0x17, 0, 0, 0, 0, 0}
	defer func() { _ = again(a, release, nil) }()
	var s stepper
	s.do("reserve", func() error { return needed("RESERVE(6)", again(a, reserve, nil)) })
	s.do("write of the owner", func() error { return p.blockWrite(a) })
	s.conflicts("write of the other host", func() error { return p.blockWrite(b) })
	s.conflicts("reserve of the other host", func() error { return again(b, reserve, nil) })
	s.do("release", func() error { return again(a, release, nil) })
	s.do("write of the other host after the release", func() error { return p.blockWrite(b) })
	return "as it should be", s.err
}
