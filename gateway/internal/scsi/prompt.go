package scsi

import (
	"context"
	"errors"
)

// Prompt is what a Backend may be besides: one that often has the answer at hand, such as memory or a cache. A READ or
// WRITE is then tried on the goroutine that received it, and no other one has to be woken for it.
//
// Both methods return at once: done is false, and nothing happened, when they would have to wait for anything but the
// processor. Else err is what Read or Write of Backend would have returned.
type Prompt interface {
	TryRead(p []byte, off int64) (done bool, err error)
	TryWrite(p []byte, off int64) (done bool, err error)
}

// trial is how far Try has come with a command.
type trial uint8

const (
	trialNone  trial = iota
	trialRuns        // nothing may wait
	trialLater       // it would have to
)

// errLater ends a trial that would have to wait. It never leaves Try.
var errLater = errors.New("scsi: not at once")

// Try is Execute for a command whose answer is at hand: a READ or WRITE of a medium that has it at once, or that fails
// before it reaches the medium. It returns false, and nothing happened, when only Execute can tell; c is then as it was.
// Nor is anything tried while there is a reservation. It never waits, and what it did can not be aborted.
func (n *Nexus) Try(c *Command) bool {
	if len(c.CDB) == 0 {
		return false
	}
	a := n.lookup(c.LUN)
	if a == nil || a.prompt == nil || !tries(c.CDB[0]) {
		return false
	}
	c.buffer = nil
	c.clearResult()
	op := a.admit(c)
	if op == nil {
		return true
	}
	if seen, ok := a.permits(op, c); seen != nil || !ok { // perform may have to ask
		return false
	}
	c.trial = trialRuns
	op.run(context.Background(), a, c)
	done := c.trial != trialLater
	c.trial = trialNone
	if !done {
		c.clearResult()
	}
	return done
}

// tries tells whether an operation reads or writes the medium once and does nothing else.
func tries(opcode byte) bool {
	switch opcode {
	case 0x08, 0x28, 0xA8, 0x88, 0x0A, 0x2A, 0xAA, 0x8A: // READ and WRITE (6), (10), (12), (16)
		return true
	}
	return false
}

// readMedium fills p from off for c.
func (a *attachment) readMedium(ctx context.Context, c *Command, p []byte, off int64) error {
	if c.trial == trialNone {
		return a.backend.Read(ctx, p, off)
	}
	done, err := a.prompt.TryRead(p, off)
	return c.tried(done, err)
}

// writeMedium stores p at off for c.
func (a *attachment) writeMedium(ctx context.Context, c *Command, p []byte, off int64) error {
	if c.trial == trialNone {
		return a.backend.Write(ctx, p, off)
	}
	done, err := a.prompt.TryWrite(p, off)
	return c.tried(done, err)
}

// tried notes whether c has to be executed after all.
func (c *Command) tried(done bool, err error) error {
	if !done {
		c.trial = trialLater
		return errLater
	}
	return err
}
