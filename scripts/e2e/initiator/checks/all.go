package checks

import (
	"slices"

	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/hostile"
	"github.com/ashlar-storage/ashlar/scripts/e2e/initiator/peer"
)

// All returns the checks of all suites, in an order that they can be run in.
func All() []peer.Check {
	return slices.Concat(Login(), Feature(), Data(), Tasks(), Authentication(), Recovery(), hostile.Checks())
}
