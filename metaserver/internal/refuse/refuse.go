// Package refuse holds the answers with which the metaserver refuses what it was asked: a kind that a program understands
// and a sentence that says what is wrong and what to do. Package metarpc turns the kinds into gRPC codes.
package refuse

import (
	"errors"
	"fmt"
)

// Kind is why something is refused.
type Kind uint8

// The kinds.
const (
	// Invalid: the request can never be right.
	Invalid Kind = iota + 1
	// NotFound: what it names does not exist.
	NotFound
	// Exists: what it would make exists already.
	Exists
	// State: not in the present state of things; the text says what has to be done first.
	State
	// Exhausted: a limit is reached.
	Exhausted
	// Foreign: who asks belongs to another cluster, or is not who it says it is.
	Foreign
)

// Error is a refusal. Nothing was changed.
type Error struct {
	Kind Kind
	// Text is a sentence without a full stop.
	Text string
}

func (e *Error) Error() string { return e.Text }

// As refuses with a formatted sentence.
func As(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// Is tells whether err is a refusal of a kind.
func Is(err error, k Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == k
}
