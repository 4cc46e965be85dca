package reservation

// SanitizeInitiator stands for the gateways where they reach the medium for a SANITIZE. It is no iSCSI name.
const SanitizeInitiator = "sanitize"

// Sanitize is a SANITIZE that is under way, or that has failed (SBC-4 4.11). It belongs to the logical unit: the gateway that
// carries it out holds the claim, and records from time to time how far it is, so that another one can go on.
type Sanitize struct {
	// ID is the version of the state that it began with.
	ID uint64 `json:"id"`
	// Passes is how often all is overwritten, each logical block with Pattern, and every second time with its inverse if
	// Invert; 0: it is unmapped. Size is that of all, in bytes.
	Passes  uint8  `json:"passes,omitempty"`
	Pattern []byte `json:"pattern,omitempty"`
	Invert  bool   `json:"invert,omitempty"`
	Size    int64  `json:"size"`
	// Exit: EXIT FAILURE MODE is allowed after a failure (AUSE).
	Exit bool `json:"exit,omitempty"`
	// Done is how many bytes surely are done, those of all passes counted.
	Done   int64 `json:"done,omitempty"`
	Failed bool  `json:"failed,omitempty"`
	// Claim rises with each gateway that takes over. Port is the relative target port of the one that holds it.
	// Beat counts its reports.
	Claim uint64 `json:"claim"`
	Port  uint16 `json:"port"`
	Beat  uint64 `json:"beat,omitempty"`
}

// Total is how many bytes are to be done, those of all passes counted.
func (z *Sanitize) Total() int64 { return int64(max(z.Passes, 1)) * z.Size }

// Runs tells whether one is under way.
func (z *Sanitize) Runs() bool { return z != nil && !z.Failed }

// sanitize is SANITIZE (SBC-4 5.34), and what the gateways tell of one.
func (s *State) sanitize(r *Request) Status {
	z := s.Sanitize
	switch r.Action {
	case SanitizeBegin, SanitizeExit:
		switch {
		case !s.Allows(r.Nexus, Write):
			return Conflict
		case z.Runs():
			return Sanitizing
		case r.Action == SanitizeExit && z != nil && !z.Exit:
			return InvalidFieldInCDB
		case r.Action == SanitizeExit:
			s.Sanitize = nil
			return Good
		}
		next := *r.Sanitize
		next.ID, next.Done, next.Failed, next.Claim, next.Port, next.Beat = s.Version+1, 0, false, 1, r.Nexus.Port, 0
		s.Sanitize = &next
		return Good
	}
	if !z.Runs() || z.ID != r.Sanitize.ID || z.Claim != r.Sanitize.Claim {
		return Conflict
	}
	next := *z
	s.Sanitize = &next
	if r.Action == SanitizeClaim {
		next.Claim, next.Port = z.Claim+1, r.Nexus.Port
		return Good
	}
	next.Beat++
	next.Done, next.Failed = max(z.Done, r.Sanitize.Done), r.Sanitize.Failed
	if next.Done >= next.Total() {
		s.Sanitize = nil
	}
	return Good
}
