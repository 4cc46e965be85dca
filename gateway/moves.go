package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/storage/volume"
)

// movesLogEvery is the shortest time between two lines of the log about paths that came back from other gateways.
const movesLogEvery = 10 * time.Second

// moves counts how often initiators' paths came back from other gateways, and has the log say so: each line speaks of one move
// and tells how many there were since the line before.
type moves struct {
	log   *zap.Logger
	total atomic.Uint64

	mu struct {
		sync.Mutex
		since  uint64
		logged time.Time
	}
}

// note takes a move in.
func (m *moves) note(e volume.Move) {
	m.total.Add(1)
	m.mu.Lock()
	m.mu.since++
	since, now := m.mu.since, time.Now()
	due := now.Sub(m.mu.logged) >= movesLogEvery
	if due {
		m.mu.since, m.mu.logged = 0, now
	}
	m.mu.Unlock()
	if due {
		m.log.Info("an initiator's path came back from another gateway", zap.Uint64("volume", uint64(e.Volume)),
			zap.String("initiator", e.Initiator), zap.Duration("lasted", e.Lasted), zap.Duration("pause", e.Pause), zap.Uint64("moves", since))
	}
}
