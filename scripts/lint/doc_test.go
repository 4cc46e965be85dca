// Package lint is the repository's check of itself: what the documents promise about the shape of the
// source is asserted here, by tests, on every commit.
//
//	imports_test.go    who may import whom: one table, and the bans that it implies
//	purity_test.go     calls that the pure packages never make (clock, sleep, timers)
//	shape_test.go      package comments, names, init functions, sizes, leftovers, paths of a machine
//	commands_test.go   gofmt, go vet, go mod tidy -diff, generated code against its .proto files
//
// Each gate is a function from parsed sources to findings. It runs twice: over the repository, where it
// must find nothing, and over a small bad sample, where it must find exactly what is wrong with it. A
// gate that can not fail is a defect, so the second run is not optional.
package lint
