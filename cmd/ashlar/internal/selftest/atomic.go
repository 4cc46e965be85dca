package selftest

import (
	"errors"
	"fmt"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// atomicChecks are about COMPARE AND WRITE, which ESXi calls ATS.
func atomicChecks() map[string]check {
	return map[string]check{
		"ats": {
			area: "ATS", title: "COMPARE AND WRITE", want: "writes when equal; else 0E/1D/00 and writes nothing",
			advice: "VMFS locks the whole datastore by reservations instead, and heartbeats fail.", writes: true, run: compareAndWrite,
		},
		"ats limit": {
			area: "ATS", title: "page B0h, maximum compare and write length", want: "1 block or more", advice: "ESXi does not use ATS.",
			run: func(p *probe) (string, error) {
				b, err := p.vpd(0xb0)
				if err != nil || len(b) < 6 || b[5] == 0 {
					return "", fmt.Errorf("0 blocks: %w", orGood(err))
				}
				return fmt.Sprintf("%d blocks", b[5]), nil
			},
		},
		"ats race": {
			area: "ATS", title: "COMPARE AND WRITE of two hosts at once", want: "exactly one of them wins, 200 times",
			advice: "Two hosts hold one lock: the datastore will be damaged.", writes: true, run: atsRace,
		},
		"ats heartbeat": {
			area: "ATS", title: "heartbeat under load", want: "each below 8 s, no false miscompare",
			advice: "ESXi loses the datastore when a heartbeat takes 8 s or miscompares.", writes: true, run: atsHeartbeat,
		},
	}
}

// compareWrite sends COMPARE AND WRITE for one block of the allowed range.
func (p *probe) compareWrite(h *wire.Host, off int, old, want byte) (wire.Result, error) {
	cdb := rw16(0x89, 0, p.at(off), 0)
	cdb[13] = 1
	return h.Do(cdb, 0, append(filled(p.blockLen, old), filled(p.blockLen, want)...))
}

// swap is compareWrite that says whether it won; anything but a miscompare is an error.
func (p *probe) swap(h *wire.Host, off int, old, want byte) (bool, error) {
	r, err := p.compareWrite(h, off, old, want)
	switch {
	case err != nil:
		return false, err
	case r.Err() == nil:
		return true, nil
	case r.Status == wire.CheckCondition && r.Sense == wire.Sense{Key: 0x0e, ASC: 0x1d}:
		return false, nil
	}
	return false, needed("COMPARE AND WRITE", r.Err())
}

func compareAndWrite(p *probe) (string, error) {
	if err := p.writeAt(0, filled(p.blockLen, 1)); err != nil {
		return "", err
	}
	if won, err := p.swap(p.h, 0, 1, 2); err != nil || !won {
		return "", fmt.Errorf("equal data miscompares: %w", orGood(err))
	}
	if won, err := p.swap(p.h, 0, 1, 3); err != nil || won {
		return "", fmt.Errorf("other data compares as equal: %w", orGood(err))
	}
	b, err := p.readAt(0, p.blockLen)
	if err != nil || b[0] != 2 || b[len(b)-1] != 2 {
		return "", fmt.Errorf("the block holds something else: %w", orGood(err))
	}
	return "wrote when equal, 0E/1D/00 when not", nil
}

func atsRace(p *probe) (string, error) {
	other, err := p.openOther()
	if err != nil {
		if other, err = p.open(); err != nil {
			return "", err
		}
	}
	if err := p.writeAt(0, filled(p.blockLen, 0)); err != nil {
		return "", err
	}
	type outcome struct {
		won bool
		err error
	}
	for i := range 200 {
		old, mine, yours := byte(0), byte(2*i+1), byte(2*i+2)
		b, err := p.readAt(0, p.blockLen)
		if err != nil {
			return "", err
		}
		old = b[0]
		if old == mine || old == yours {
			mine, yours = mine+100, yours+100
		}
		c := make(chan outcome, 1)
		go func() {
			won, err := p.swap(other, 0, old, yours)
			c <- outcome{won, err}
		}()
		won, err := p.swap(p.h, 0, old, mine)
		o := <-c
		if err := errors.Join(err, o.err); err != nil {
			return "", err
		}
		if won == o.won {
			return "", fmt.Errorf("round %d: both have won is %v", i+1, won)
		}
	}
	return "200 rounds", nil
}

// atsHeartbeat swaps a block 20 times a second while two paths write.
func atsHeartbeat(p *probe) (string, error) {
	if err := p.writeAt(0, filled(p.blockLen, 0)); err != nil {
		return "", err
	}
	var paths [2]*wire.Host
	for i := range paths {
		h, err := p.open()
		if err != nil {
			return "", err
		}
		paths[i] = h
	}
	stop := time.Now().Add(3 * time.Second)
	load := make(chan error, len(paths))
	for n, h := range paths {
		go func() {
			data := filled(256<<10, 0x11)
			for time.Now().Before(stop) {
				if err := runOn(h, rw16(opWrite16, 0, p.at((n+1)<<20), uint32(len(data)/p.blockLen)), data); err != nil {
					load <- err
					return
				}
			}
			load <- nil
		}()
	}
	var worst time.Duration
	var failed error
	v, beats := byte(0), 0
	for time.Now().Before(stop) && failed == nil {
		won := false
		d, err := timed(func() (err error) { won, err = p.swap(p.h, 0, v, v+1); return err })
		if failed = err; err == nil && !won {
			failed = fmt.Errorf("beat %d miscompares although nobody else wrote", beats)
		}
		v, worst, beats = v+1, max(worst, d), beats+1
		time.Sleep(50 * time.Millisecond)
	}
	failed = errors.Join(failed, <-load, <-load)
	if failed == nil && worst > 8*time.Second {
		failed = fmt.Errorf("a beat took %v", worst)
	}
	return fmt.Sprintf("%d beats, the slowest %v", beats, worst.Round(time.Microsecond)), failed
}
