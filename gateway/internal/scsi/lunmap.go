package scsi

import (
	"fmt"
	"slices"
	"sync"
)

// Mapping puts a logical unit at a LUN.
type Mapping struct {
	LUN      uint16       // 0..LUNMax
	Unit     *LogicalUnit // shared between all that map the volume
	Backend  Backend      // the medium as this initiator reaches it; a comparable value, e.g. a pointer
	ReadOnly bool         // writes answer 07/27/00
	// Groups are the target port groups that lead to the logical unit, those of other gateways too, with the states that
	// they have for it, by tag; with none there is only the nexus' own, active/optimized. Not changed afterwards.
	Groups []PortGroup
}

// LUNMap holds the logical units of one target as one initiator sees them. All nexuses between the two share it.
type LUNMap struct {
	mu struct {
		sync.Mutex
		mappings []Mapping // by LUN
		nexuses  map[*Nexus]struct{}
	}
}

// NewLUNMap makes a map; it may be empty.
func NewLUNMap(mappings ...Mapping) (*LUNMap, error) {
	sorted, err := sortMappings(mappings)
	if err != nil {
		return nil, err
	}
	m := &LUNMap{}
	m.mu.mappings = sorted
	m.mu.nexuses = make(map[*Nexus]struct{})
	return m, nil
}

// Update replaces all mappings. Commands that run keep the mapping that they began with; the caller aborts those of
// a LUN that went away. When the set of LUNs changed, or a LUN leads to another logical unit, every nexus finds the
// unit attention REPORTED LUNS DATA HAS CHANGED (3F/0E) on the logical units that it keeps; a LUN that only became
// read-only or writable finds MODE PARAMETERS CHANGED (2A/01). When a target port group came, went or changed its state, that
// is ASYMMETRIC ACCESS STATE CHANGED (2A/06), and INQUIRY DATA HAS CHANGED (3F/03) when MULTIP changed with it.
func (m *LUNMap) Update(mappings ...Mapping) error {
	sorted, err := sortMappings(mappings)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.mappings = sorted
	for n := range m.mu.nexuses {
		n.remap(sorted)
	}
	return nil
}

// Mappings returns a copy of what is mapped, by LUN.
func (m *LUNMap) Mappings() []Mapping {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mu.mappings)
}

func sortMappings(mappings []Mapping) ([]Mapping, error) {
	sorted := slices.Clone(mappings)
	slices.SortFunc(sorted, func(a, b Mapping) int { return int(a.LUN) - int(b.LUN) })
	for i, m := range sorted {
		switch {
		case m.LUN > LUNMax:
			return nil, fmt.Errorf("scsi: LUN %d is more than %d", m.LUN, LUNMax)
		case m.Unit == nil || m.Backend == nil:
			return nil, fmt.Errorf("scsi: LUN %d has no logical unit or no backend", m.LUN)
		case i > 0 && sorted[i-1].LUN == m.LUN:
			return nil, fmt.Errorf("scsi: LUN %d is mapped twice", m.LUN)
		}
	}
	return sorted, nil
}
