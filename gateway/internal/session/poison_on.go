//go:build invariants

package session

const poison = true
