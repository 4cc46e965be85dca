package volume

import "time"

const (
	// paceYoung is up to which age a tenancy that is lost counts as short.
	paceYoung = time.Second
	// paceMin and paceMax bound the pause after a short tenancy. It is paceMin as long as operations get done in each of them,
	// and doubles with each in which none does.
	paceMin, paceMax = 10 * time.Millisecond, 500 * time.Millisecond
)

// pace holds a gateway back that loses the path again and again: it leaves the path to the other one for a while, which can get
// something done meanwhile, and does not ask the metaserver more often than it can bear. The path that was lost after a long
// tenancy is taken back at once.
//
// It is guarded by the handle's mutex.
type pace struct {
	began time.Time // when the first request of the tenancy was sent; zero before
	done  bool      // an operation was done in the tenancy

	lasted, pause time.Duration // of the tenancy that was lost, and after it
	until         time.Time     // the path is taken back no sooner
}

// next says that there is another tenancy, send that a request is sent in it, end that it was overtaken.
func (p *pace) next() { p.began, p.done = time.Time{}, false }

func (p *pace) send() {
	if p.began.IsZero() {
		p.began = time.Now()
	}
}

func (p *pace) end() {
	now := time.Now()
	p.lasted = 0
	if !p.began.IsZero() {
		p.lasted = now.Sub(p.began)
	}
	switch {
	case p.lasted >= paceYoung:
		p.pause = 0
	case p.done:
		p.pause = paceMin
	default:
		p.pause = min(max(2*p.pause, paceMin), paceMax)
	}
	p.until = now.Add(p.pause)
}
