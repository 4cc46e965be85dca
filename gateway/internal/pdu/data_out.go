package pdu

// DataOut carries data from the initiator, RFC 7143 section 11.7: unsolicited if TTT is reserved, else for the R2T of
// that tag.
type DataOut struct {
	Final        bool // end of the sequence
	LUN          LUN  // valid iff TTT is not reserved
	ITT          ITT
	TTT          TTT
	ExpStatSN    StatSN
	DataSN       DataSN
	BufferOffset uint32 // of the data, from the start of the write, in bytes
	Data         []byte // borrowed
}

// ParseDataOut parses a Data-Out. data is kept.
func ParseDataOut(h *Header, ahs, data []byte) (DataOut, error) {
	if err := h.expect(OpDataOut, ahs, data); err != nil {
		return DataOut{}, err
	}
	if err := h.expectITT(); err != nil {
		return DataOut{}, err
	}
	return DataOut{
		h.Final(), h.LUN(), h.ITT(), h.TTT(), h.ExpStatSN(), DataSN(h.u32(36)), h.u32(40), data,
	}, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *DataOut) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpDataOut, bit(p.Final, flagFinal), dataLen)
	h.putTask(p.LUN, p.ITT, p.TTT)
	h.put32(28, uint32(p.ExpStatSN))
	h.put32(36, uint32(p.DataSN))
	h.put32(40, p.BufferOffset)
	return dst
}
