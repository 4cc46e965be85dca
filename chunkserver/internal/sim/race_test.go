//go:build race

package sim

// raced: the race detector makes a simulation many times slower and sees nothing, because one goroutine runs at a time. So
// only a little is run with it.
const raced = true
