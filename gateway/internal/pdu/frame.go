package pdu

// Limits is what a receiver agreed to take from its peer on one connection.
type Limits struct {
	// MaxData is the largest data segment, in bytes without padding: the receiver's own MaxRecvDataSegmentLength,
	// which is 8192 during login.
	MaxData int
	// HeaderDigest and DataDigest say whether CRC32C was negotiated; never during login.
	HeaderDigest, DataDigest bool
}

// FrameSize says how many bytes of each part follow a BHS.
type FrameSize struct {
	AHS          int // 0 to MaxAHSLen
	HeaderDigest int // 0 or DigestLen
	Data         int // 0 to Limits.MaxData
	Pad          int // 0 to 3
	DataDigest   int // 0 or DigestLen; 0 if there is no data
}

// Layout returns the sizes of what follows h, or a *FormatError if they exceed lim or the PDU may not have them. It
// looks at the lengths only, so that it can run before anything is allocated; the opcode may be an unknown one.
func Layout(h *Header, lim Limits) (FrameSize, error) {
	s := FrameSize{AHS: h.AHSLen(), Data: h.DataSegmentLen()}
	if s.AHS != 0 && h.Opcode() != OpSCSICommand {
		return FrameSize{}, formatErrorf(RejectInvalidPDUField, "%v with an additional header segment of %d bytes", h.Opcode(), s.AHS)
	}
	if s.Data > lim.MaxData {
		return FrameSize{}, formatErrorf(RejectProtocolError, "%v: data segment of %d bytes, the limit is %d", h.Opcode(), s.Data, lim.MaxData)
	}
	s.Pad = PadLen(s.Data)
	if lim.HeaderDigest {
		s.HeaderDigest = DigestLen
	}
	if lim.DataDigest && s.Data > 0 {
		s.DataDigest = DigestLen
	}
	return s, nil
}

// HeaderRest returns the bytes that follow the BHS up to the data segment: AHS and header digest.
func (s FrameSize) HeaderRest() int { return s.AHS + s.HeaderDigest }

// DataRest returns the bytes of data segment, padding and data digest.
func (s FrameSize) DataRest() int { return s.Data + s.Pad + s.DataDigest }

// Total returns all bytes that follow the BHS.
func (s FrameSize) Total() int { return s.HeaderRest() + s.DataRest() }

// CheckHeader takes the HeaderRest bytes that follow h, checks the header digest if there is one, and returns the AHS,
// which is part of rest. The error is a *DigestError, or a *FormatError if rest has not the right length.
func (s FrameSize) CheckHeader(h *Header, rest []byte) (ahs []byte, err error) {
	if len(rest) != s.HeaderRest() {
		return nil, formatErrorf(RejectInvalidPDUField, "%d bytes after the BHS, expected %d", len(rest), s.HeaderRest())
	}
	ahs = rest[:s.AHS:s.AHS]
	if s.HeaderDigest != 0 {
		if err := Digest(0).Update(h[:]).Update(ahs).check(rest[s.AHS:], true); err != nil {
			return nil, err
		}
	}
	return ahs, nil
}

// CheckData takes the DataRest bytes of a data segment, checks the data digest if there is one, and returns the data
// without padding, which is part of rest. The error is as in CheckHeader.
func (s FrameSize) CheckData(rest []byte) (data []byte, err error) {
	if len(rest) != s.DataRest() {
		return nil, formatErrorf(RejectInvalidPDUField, "data segment of %d bytes, expected %d", len(rest), s.DataRest())
	}
	return rest[:s.Data:s.Data], s.CheckSplitData(rest[:s.Data], rest[s.Data:])
}

// CheckSplitData is CheckData for data that was read into another buffer than the Pad+DataDigest bytes behind it.
func (s FrameSize) CheckSplitData(data, trailer []byte) error {
	if len(data) != s.Data || len(trailer) != s.Pad+s.DataDigest {
		return formatErrorf(RejectInvalidPDUField, "data segment of %d+%d bytes, expected %d+%d",
			len(data), len(trailer), s.Data, s.Pad+s.DataDigest)
	}
	if s.DataDigest == 0 {
		return nil
	}
	return Digest(0).Update(data).Update(trailer[:s.Pad]).check(trailer[s.Pad:], false)
}
