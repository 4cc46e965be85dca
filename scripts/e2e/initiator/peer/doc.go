// Package peer is what the checks of packages checks and hostile are written with: a wire.Host that ends the check when
// the target does not do as it must, and the description of a target.
//
// A check is a named function of a Target, so that a test of this repository runs it over a target in its own process,
// and another one over a cluster, or over any target that the environment names.
package peer
