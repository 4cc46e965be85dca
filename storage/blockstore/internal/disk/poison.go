package disk

import (
	"sync"

	"go.uber.org/zap"
)

// Poison remembers the first failure after which the disk is not trusted.
type Poison struct {
	once sync.Once
	ch   chan struct{}
	err  *PoisonedError // set before ch is closed
	log  *zap.Logger
}

// NewPoison returns one that is not set.
func NewPoison(log *zap.Logger) *Poison { return &Poison{ch: make(chan struct{}), log: log} }

// Done returns what is closed when the store is poisoned.
func (p *Poison) Done() <-chan struct{} { return p.ch }

// Set poisons the store and returns its error.
func (p *Poison) Set(err error) error {
	p.once.Do(func() {
		p.err = &PoisonedError{Err: err}
		p.log.Error("block store poisoned", zap.Error(err))
		close(p.ch)
	})
	return p.Err()
}

// Err returns nil or a *PoisonedError.
func (p *Poison) Err() error {
	select {
	case <-p.ch:
		return p.err
	default:
		return nil
	}
}
