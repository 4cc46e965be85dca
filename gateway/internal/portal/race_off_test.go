//go:build !race

package portal

const race = false
