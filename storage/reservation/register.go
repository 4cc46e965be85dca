package reservation

import "slices"

// register is REGISTER (SPC-4 5.13.7, table 67).
func (s *State) register(r *Request) Status {
	own := s.KeyOf(r.Nexus)
	switch {
	case own != r.Key: // also a key from a nexus that has none, and none from one that has
		return Conflict
	case own == 0 && r.ServiceKey == 0:
		return Good
	case own != 0 && r.SpecIPT:
		return InvalidFieldInCDB
	}
	return s.enroll(r)
}

// registerAndIgnore is REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7, table 68).
func (s *State) registerAndIgnore(r *Request) Status {
	switch {
	case r.SpecIPT:
		return InvalidFieldInParameters
	case r.ServiceKey == 0 && s.KeyOf(r.Nexus) == 0:
		return Good
	}
	return s.enroll(r)
}

// enroll registers, changes the key of, or (ServiceKey 0) unregisters the nexus of r and those that it names.
func (s *State) enroll(r *Request) Status {
	ports := []uint16{r.Nexus.Port}
	if r.AllPorts {
		for _, p := range r.Ports {
			if p != r.Nexus.Port {
				ports = append(ports, p)
			}
		}
	}
	if r.ServiceKey == 0 {
		for _, p := range ports {
			s.unregister(at(r.Nexus, p))
		}
	}
	if r.ServiceKey != 0 {
		for _, p := range ports {
			s.put(at(r.Nexus, p), r.ServiceKey, true)
			for _, i := range r.Initiators {
				s.put(at(i, p), r.ServiceKey, false)
			}
		}
	}
	if len(s.Registrations) > RegistrationsMax {
		return NoResources
	}
	s.APTPL = r.APTPL
	s.Generation++
	return Good
}

// at returns n at another target port.
func at(n Nexus, port uint16) Nexus {
	n.Port = port
	return n
}

// put registers a nexus, or with change set changes the key of one that is registered.
func (s *State) put(n Nexus, key Key, change bool) {
	if i := s.find(n); i >= 0 {
		if change {
			s.Registrations = slices.Clone(s.Registrations)
			s.Registrations[i].Key = key
		}
		return
	}
	i, _ := slices.BinarySearchFunc(s.Registrations, n, func(r Registration, n Nexus) int { return r.compare(n) })
	s.Registrations = slices.Insert(slices.Clone(s.Registrations), i, Registration{Nexus: n, Key: key})
}

// unregister takes a registration away, and its reservation with it (SPC-4 5.13.11.2.3).
func (s *State) unregister(n Nexus) {
	i := s.find(n)
	if i < 0 {
		return
	}
	own := s.Registrations[i]
	if s.Type != 0 && !s.Type.all() && s.Holds(own) {
		s.free(own.Nexus)
	}
	s.remove([]Nexus{own.Nexus})
	if s.Type.all() && len(s.Registrations) == 0 {
		s.Type = 0
	}
}

// move is REGISTER AND MOVE (SPC-4 5.13.8).
func (s *State) move(r *Request) Status {
	own := s.Registrations[s.find(r.Nexus)]
	switch {
	case s.Type == 0 || s.Type.all() || !s.Holds(own):
		return Conflict
	case r.ServiceKey == 0 || s.same(own.Nexus, r.Destination) || r.Destination.AnyISID:
		return InvalidFieldInParameters
	case !slices.Contains(r.Ports, r.Destination.Port):
		return InvalidFieldInParameters
	}
	s.put(r.Destination, r.ServiceKey, true)
	if len(s.Registrations) > RegistrationsMax {
		return NoResources
	}
	s.Holder = s.Registrations[s.find(r.Destination)].Nexus
	if r.Unregister {
		s.remove([]Nexus{own.Nexus})
	}
	s.APTPL = r.APTPL
	s.Generation++
	return Good
}
