// Package extentmap is the content of a copyset in memory: which chunks it has, which of their leaves are at hand, what changed
// since the last checkpoint, and which blocks that freed.
//
//	            Prepare            Switch
//	index ─► clean leaf ─Clone─► dirty leaf ─► overlay ─Freeze─► frozen ─► index
//	            ▲    cache               └─► freed blocks
//	            └── SetLeaf
//
// A leaf may be changed while its Gen is the map's; any other is immutable and shared with frozen overlays and images. The
// package does no I/O and has no lock: the copyset's guards it.
package extentmap
