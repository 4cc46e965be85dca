package raftzap

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestLevels(t *testing.T) {
	core, seen := observer.New(zapcore.DebugLevel)
	var l raft.Logger = Logger{zap.New(core)}
	for _, c := range []struct {
		say  func()
		want string
	}{
		{func() { l.Debug("a") }, ""},
		{func() { l.Infof("%d", 1) }, ""},
		{func() { l.Warningf("%d", 1) }, "debug 1"},
		{func() { l.Error("lost ", 2) }, "warn lost 2"},
	} {
		c.say()
		got := ""
		for _, e := range seen.TakeAll() {
			got += e.Level.String() + " " + e.Message
		}
		if got != c.want {
			t.Errorf("said %q, want %q", got, c.want)
		}
	}
	defer func() {
		if r := recover(); r != "term 5" {
			t.Errorf("a broken invariant: %v", r)
		}
	}()
	l.Panicf("term %d", 5)
}
