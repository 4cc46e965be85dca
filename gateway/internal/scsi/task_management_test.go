package scsi

import "testing"

// TestTaskManagement looks at unit attentions without taking them, and loses the nexus.
func TestTaskManagement(t *testing.T) {
	a := disk512(t).login(AttentionPowerOn)
	defer a.Close()
	if code, n := a.PendingAttention(FlatLUN(0)); code != AttentionPowerOn || n != 1 {
		t.Errorf("%v, %d waiting", code, n)
	}
	a.lookup(FlatLUN(0)).Attentions.Add(AttentionLUNsChanged)
	if code, n := a.PendingAttention(FlatLUN(0)); code != AttentionPowerOn || n != 2 {
		t.Errorf("%v, %d waiting", code, n)
	}
	a.ResetNexus()
	if code, n := a.PendingAttention(FlatLUN(0)); code != AttentionNexusLoss || n != 1 {
		t.Errorf("%v, %d waiting after the reset", code, n)
	}
	if code, ok := a.lookup(FlatLUN(0)).Attentions.Take(); !ok || code != AttentionNexusLoss {
		t.Errorf("took %v", code)
	}
	if code, n := a.PendingAttention(FlatLUN(0)); code != NoSense || n != 0 {
		t.Errorf("%v, %d waiting when all is told", code, n)
	}
	if code, n := a.PendingAttention(FlatLUN(99)); code != NoSense || n != 0 {
		t.Errorf("%v, %d waiting on an absent LUN", code, n)
	}
}
