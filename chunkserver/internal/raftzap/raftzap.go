// Package raftzap passes on what raft's library has to say.
//
//	Debug, Info ──► nothing        Error ──► Warn
//	Warning ──────► Debug          Fatal, Panic ──► panic: the node met something that must not be
package raftzap

import (
	"fmt"

	"go.uber.org/zap"
)

// Logger is a raft.Logger.
type Logger struct{ L *zap.Logger }

// Debug is dropped.
func (Logger) Debug(...any) {}

// Debugf is dropped.
func (Logger) Debugf(string, ...any) {}

// Info is dropped: it tells of each vote.
func (Logger) Info(...any) {}

// Infof is dropped.
func (Logger) Infof(string, ...any) {}

// Warning is for who debugs.
func (r Logger) Warning(v ...any) { r.L.Debug(fmt.Sprint(v...)) }

// Warningf is for who debugs.
func (r Logger) Warningf(f string, v ...any) { r.L.Debug(fmt.Sprintf(f, v...)) }

// Error is a warning here.
func (r Logger) Error(v ...any) { r.L.Warn(fmt.Sprint(v...)) }

// Errorf is a warning here.
func (r Logger) Errorf(f string, v ...any) { r.L.Warn(fmt.Sprintf(f, v...)) }

// Fatal panics: whoever drives the node stops it.
func (Logger) Fatal(v ...any) { panic(fmt.Sprint(v...)) }

// Fatalf panics.
func (Logger) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }

// Panic panics.
func (Logger) Panic(v ...any) { panic(fmt.Sprint(v...)) }

// Panicf panics.
func (Logger) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
