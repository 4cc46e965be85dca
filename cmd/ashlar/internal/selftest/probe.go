package selftest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// probe is the host that the checks are.
type probe struct {
	ctx    context.Context //nolint:containedctx // one run, which is over when it is
	o      Options
	h      *wire.Host // the session that most checks use
	isid   uint32
	others []*wire.Host // opened by the check that runs

	// Of the logical unit, found when the run begins.
	blocks   uint64
	blockLen int
}

// writesMin is the smallest range that can be worked on, bytes.
const writesMin = 4 << 20

// ErrRangeSmall says that the allowed range can not be used.
var ErrRangeSmall = errors.New("the blocks to be written must lie on the logical unit and be 4 MiB or more")

func newProbe(ctx context.Context, o Options) (*probe, error) {
	p := &probe{ctx: ctx, o: o, isid: rand.Uint32() & 0xffffff}
	h, err := p.dial(o.Initiator, nil)
	if err != nil {
		return nil, fmt.Errorf("log in to %s at %s: %w", o.URL.Target, o.URL.Portal, err)
	}
	p.h = h
	r, err := p.do(service(0x9e, 0x10, 32), 32, nil)
	if err == nil {
		err = r.Err()
	}
	if err == nil && len(r.Data) < 32 {
		err = fmt.Errorf("%d bytes", len(r.Data))
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("READ CAPACITY(16) of LUN %d: %w", o.URL.LUN, err)
	}
	p.blocks, p.blockLen = binary.BigEndian.Uint64(r.Data)+1, int(binary.BigEndian.Uint32(r.Data[8:]))
	if p.o.Writes == All {
		p.o.Writes.Count = p.blocks
	}
	w := p.o.Writes
	if w.Count != 0 && (p.blockLen == 0 || w.First >= p.blocks || w.Count > p.blocks-w.First || w.Count < writesMin/uint64(p.blockLen)) {
		h.Close()
		return nil, fmt.Errorf("blocks %d to %d of %d: %w", w.First, w.First+w.Count-1, p.blocks, ErrRangeSmall)
	}
	return p, nil
}

// dial opens a session with an ISID of its own and takes the unit attentions. keys nil are the usual ones.
func (p *probe) dial(name string, keys []string) (*wire.Host, error) {
	return p.dialAt(p.o.URL.Portal, name, keys)
}

// dialAt is dial at another portal.
func (p *probe) dialAt(portal, name string, keys []string) (*wire.Host, error) {
	p.isid++
	n := p.isid
	c, err := wire.Dial(p.ctx, portal)
	if err != nil {
		return nil, err
	}
	c.Timeout = p.o.Timeout
	h := wire.NewHost(c, 1)
	h.LUN = wire.LUN(p.o.URL.LUN)
	err = h.Login(wire.Login{
		Initiator: name, Target: p.o.URL.Target, ISID: [6]byte{0x80, byte(n >> 16), byte(n >> 8), byte(n), 0, 1},
		User: p.o.URL.User, Secret: p.o.URL.Secret, Keys: keys,
	})
	if err == nil {
		err = h.Ready()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return h, nil
}

// open is another path of this host: a session of the same initiator.
func (p *probe) open(change ...string) (*wire.Host, error) { return p.openAs(p.o.Initiator, change...) }

// openOther is a session of another host.
func (p *probe) openOther() (*wire.Host, error) { return p.openAs(p.o.Initiator + ".other") }

func (p *probe) openAs(name string, change ...string) (*wire.Host, error) {
	h, err := p.dial(name, wire.WithKeys(change...))
	if err == nil {
		p.others = append(p.others, h)
	}
	return h, err
}

// fresh has a session that works for the next check: the one before may have lost it, or left unit attentions.
func (p *probe) fresh() error {
	if p.h.Ready() == nil {
		return nil
	}
	p.h.Close()
	h, err := p.dial(p.o.Initiator, nil)
	if err != nil {
		return err
	}
	p.h = h
	return nil
}

// endCheck closes the sessions that a check opened.
func (p *probe) endCheck() {
	for _, h := range p.others {
		h.Close()
	}
	p.others = nil
}

func (p *probe) close() {
	_ = p.h.Logout()
	p.h.Close()
}

// do runs a command on the usual session.
func (p *probe) do(cdb []byte, in int, out []byte) (wire.Result, error) { return p.h.Do(cdb, in, out) }

// data runs a command that must succeed and returns its data.
func (p *probe) data(cdb []byte, in int) ([]byte, error) { return dataOf(p.h, cdb, in) }

func dataOf(h *wire.Host, cdb []byte, in int) ([]byte, error) {
	r, err := h.Do(cdb, in, nil)
	if err == nil {
		err = r.Err()
	}
	return r.Data, err
}

// run runs a command without data-in that must succeed.
func (p *probe) run(cdb []byte, out []byte) error { return runOn(p.h, cdb, out) }

func runOn(h *wire.Host, cdb []byte, out []byte) error {
	r, err := h.Do(cdb, 0, out)
	if err == nil {
		err = r.Err()
	}
	return err
}

// sense wants a command to end with a sense key and, if not 0, an additional sense code.
func (p *probe) sense(cdb []byte, in int, out []byte, key, asc byte) (string, error) {
	r, err := p.do(cdb, in, out)
	if err != nil {
		return "", err
	}
	found := "GOOD"
	if e := r.Err(); e != nil {
		found = e.Error()
	}
	if r.Status != wire.CheckCondition || r.Sense.Key != key || asc != 0 && r.Sense.ASC != asc {
		return "", errors.New(found)
	}
	return found, nil
}

// notThere tells whether a command failed because the target does not have it.
func notThere(err error) bool {
	var s *wire.StatusError
	return errors.As(err, &s) && s.Status == wire.CheckCondition && s.Sense.Key == 5 && (s.Sense.ASC == 0x20 || s.Sense.ASC == 0x24)
}

// optional turns "the target does not have the command" into a skip.
func optional(what string, err error) error {
	if notThere(err) {
		return skip("%s is not supported (%v): the host does without", what, err)
	}
	return err
}

// needed gives "the target does not have the command" its words.
func needed(what string, err error) error {
	if notThere(err) {
		return fmt.Errorf("%s is not supported (%w)", what, err)
	}
	return err
}

// service is a command of 16 bytes with a service action and an allocation length at byte 10.
func service(op, action byte, n uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = op, action
	binary.BigEndian.PutUint32(cdb[10:], n)
	return cdb
}

// rw16 is a command of 16 bytes with an LBA and a length in blocks.
func rw16(op, flags byte, lba uint64, n uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = op, flags
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], n)
	return cdb
}

// rw10 is a command of 10 bytes with an LBA and a length in blocks.
func rw10(op, flags byte, lba uint32, n uint16) []byte {
	cdb := make([]byte, 10)
	cdb[0], cdb[1] = op, flags
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], n)
	return cdb
}

// Operation codes.
const (
	opTestUnitReady = 0x00
	opRead16        = 0x88
	opWrite16       = 0x8a
)

// at is the LBA at a number of bytes behind the begin of the allowed range, for offsets below writesMin.
func (p *probe) at(bytes int) uint64 { return p.o.Writes.First + uint64(bytes/p.blockLen) }

// writeAt stores whole blocks in the allowed range.
func (p *probe) writeAt(off int, data []byte) error {
	return p.run(rw16(opWrite16, 0, p.at(off), uint32(len(data)/p.blockLen)), data)
}

// readAt reads n bytes from the allowed range.
func (p *probe) readAt(off, n int) ([]byte, error) {
	return p.data(rw16(opRead16, 0, p.at(off), uint32(n/p.blockLen)), n)
}

// filled is n bytes with one value.
func filled(n int, v byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = v
	}
	return b
}

// timed runs f and returns how long it took.
func timed(f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	return time.Since(began), err
}
