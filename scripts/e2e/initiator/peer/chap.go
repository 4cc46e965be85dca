package peer

import (
	"fmt"
	"strconv"

	"github.com/ashlar-storage/ashlar/cmd/ashlar/initiator/wire"
)

// Credentials skips the check if there are none.
func (g *Target) Credentials(t T) *CHAP {
	t.Helper()
	if g.CHAP == nil {
		t.Skipf("the target has no CHAP")
	}
	return g.CHAP
}

// NextInitiator is the name of an initiator that has not tried to log in yet.
func (c *CHAP) NextInitiator() string { return fmt.Sprintf("%s.%d", c.Initiator, serial.Add(1)) }

// Names are the pairs that begin a login to the target, each time of another initiator.
func (c *CHAP) Names() []string {
	return []string{"InitiatorName=" + c.NextInitiator(), "SessionType=Normal", "TargetName=" + c.Name}
}

// Challenged goes as far as the target's challenge.
func (g *Target) Challenged(t T, algorithm int) (p *Peer, id byte, challenge []byte) {
	t.Helper()
	c := g.Credentials(t)
	p = g.Dial(t)
	p.MustStep(0, wire.Security, 0, append(c.Names(), "AuthMethod=CHAP")...)
	r := p.MustStep(0, wire.Security, 0, "CHAP_A="+strconv.Itoa(algorithm))
	if v, _ := wire.Lookup(r.Data, "CHAP_A"); v != strconv.Itoa(algorithm) {
		t.Fatalf("CHAP_A=%q, offered %d", v, algorithm)
	}
	id, challenge, err := wire.Challenge(r.Data)
	p.Must("challenge", err)
	return p, id, challenge
}

// Proof is the right CHAP_R.
func (c *CHAP) Proof(algorithm int, id byte, challenge []byte) string {
	return wire.Hex(wire.CHAPResponse(algorithm, id, c.Secret, challenge))
}

// Prove sends the last security keys.
func (p *Peer) Prove(pairs ...string) (wire.PDU, error) {
	return p.Step(wire.Final, wire.Security, wire.Operational, pairs...)
}

// MutualTry sends the right answer and a challenge for the target.
func (g *Target) MutualTry(t T, pairs func(id byte, challenge []byte) []string) (*Peer, error) {
	t.Helper()
	c := g.Credentials(t)
	if c.Mutual == "" {
		t.Skipf("the target does not prove itself")
	}
	a := c.Algorithms[0]
	p, id, challenge := g.Challenged(t, a)
	_, err := p.Prove(append([]string{"CHAP_N=" + c.User, "CHAP_R=" + c.Proof(a, id, challenge)}, pairs(id, challenge)...)...)
	return p, err
}
