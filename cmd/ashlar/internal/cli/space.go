package cli

import (
	"fmt"
	"io"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// diskSpaceOut says what the bytes of a chunkserver's disk are for, in JSON; metav1.DiskSpace says what the words mean.
type diskSpaceOut struct {
	DataFileBytes    uint64 `json:"data_file_bytes"`
	ContentBytes     uint64 `json:"content_bytes"`
	VersionsBytes    uint64 `json:"versions_bytes"`
	IncomingBytes    uint64 `json:"incoming_bytes"`
	LoggedBytes      uint64 `json:"logged_bytes"`
	ReclaimableBytes uint64 `json:"reclaimable_bytes"`
	SpareBytes       uint64 `json:"spare_bytes"`
	HolesBytes       uint64 `json:"holes_bytes"`
	RaftLogBytes     uint64 `json:"raft_log_bytes"`
	IndexBytes       uint64 `json:"index_bytes"`
	ReservedBytes    uint64 `json:"reserved_bytes"`
	// PiecesPerMiB is 0 before the first survey.
	PiecesPerMiB    float64 `json:"pieces_per_mib"`
	ScatteredChunks uint64  `json:"scattered_chunks"`
	MovedBytes      uint64  `json:"moved_bytes"`
	GivenBackBytes  uint64  `json:"given_back_bytes"`
}

// newDiskSpaceOut returns nil when the chunkserver has not told it.
func newDiskSpaceOut(d *metav1.DiskSpace) *diskSpaceOut {
	if d == nil {
		return nil
	}
	o := &diskSpaceOut{
		DataFileBytes: d.GetDataFile(), ContentBytes: d.GetContent(), VersionsBytes: d.GetVersions(), IncomingBytes: d.GetIncoming(),
		LoggedBytes: d.GetLogged(), ReclaimableBytes: d.GetReclaimable(), SpareBytes: d.GetSpare(), HolesBytes: d.GetHoles(),
		RaftLogBytes: d.GetRaftLog(), IndexBytes: d.GetIndex(), ReservedBytes: d.GetReserved(),
		ScatteredChunks: d.GetScatteredChunks(), MovedBytes: d.GetMoved(), GivenBackBytes: d.GetGivenBack(),
	}
	if n := d.GetBlocks(); n > 0 {
		o.PiecesPerMiB = float64(d.GetPieces()) * (1 << 20) / blockBytes / float64(n)
	}
	return o
}

// table shows the space, without what is 0 as a rule.
func (o *diskSpaceOut) table(w io.Writer) {
	text := "content " + sizeText(o.ContentBytes)
	for _, x := range []struct {
		name  string
		bytes uint64
	}{
		{"versions", o.VersionsBytes},
		{"incoming", o.IncomingBytes},
		{"logged", o.LoggedBytes},
		{"reclaimable", o.ReclaimableBytes},
		{"spare", o.SpareBytes},
		{"holes", o.HolesBytes},
	} {
		if x.bytes > 0 {
			text += ", " + x.name + " " + sizeText(x.bytes)
		}
	}
	field(w, "Data file", sizeText(o.DataFileBytes)+": "+text)
	field(w, "Other files", "raft log "+sizeText(o.RaftLogBytes)+", index "+sizeText(o.IndexBytes)+", reserved "+sizeText(o.ReservedBytes))
	text = "not looked at yet"
	if o.PiecesPerMiB > 0 {
		text = fmt.Sprintf("1 MiB lies in %.1f pieces on average, %d chunks are scattered", o.PiecesPerMiB, o.ScatteredChunks)
	}
	if o.MovedBytes > 0 {
		text += ", " + sizeText(o.MovedBytes) + " gathered"
	}
	if o.GivenBackBytes > 0 {
		text += ", " + sizeText(o.GivenBackBytes) + " given back"
	}
	field(w, "Layout", text)
}
