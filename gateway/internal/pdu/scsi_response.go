package pdu

import "encoding/binary"

// Response is the iSCSI service response of a SCSI Response, RFC 7143 section 11.4.3.
type Response uint8

// The service responses. Status is valid only with ResponseCompleted.
const (
	ResponseCompleted     Response = 0x00
	ResponseTargetFailure Response = 0x01
)

const (
	flagBidiOverflow  = 0x10 // o
	flagBidiUnderflow = 0x08 // u
	flagOverflow      = 0x04 // O
	flagUnderflow     = 0x02 // U
)

// SCSIResponse ends a task, RFC 7143 section 11.4. The data segment holds sense and response data, see
// AppendSenseData.
type SCSIResponse struct {
	Response        Response
	Status          uint8  // SCSI status
	StatusQualifier uint16 // RFC 7144 section 5.2; 0 is none
	ITT             ITT
	SNACKTag        uint32 // 0 unless it answers an R-Data SNACK
	TargetSNs
	// ExpDataSN is how many R2T and Data-In (without status) PDUs the command has sent; 0 if the command failed
	// before it ran.
	ExpDataSN    DataSN
	Residual     Residual // of the write if it is one, else of the read
	BidiResidual Residual // of the read of a bidirectional command
	Data         []byte   // borrowed
}

// ParseSCSIResponse parses a SCSI Response. data is kept.
func ParseSCSIResponse(h *Header, ahs, data []byte) (SCSIResponse, error) {
	if err := h.expect(OpSCSIResponse, ahs, data); err != nil {
		return SCSIResponse{}, err
	}
	p := SCSIResponse{
		Response:        Response(h[2]),
		Status:          h[3],
		StatusQualifier: h.u16(8),
		ITT:             h.ITT(),
		SNACKTag:        h.u32(20),
		TargetSNs:       h.targetSNs(),
		ExpDataSN:       DataSN(h.u32(36)),
		Data:            data,
	}
	var err error
	if p.BidiResidual, err = parseResidual(h[1]&flagBidiOverflow != 0, h[1]&flagBidiUnderflow != 0, h.u32(40)); err != nil {
		return SCSIResponse{}, err
	}
	if p.Residual, err = parseResidual(h[1]&flagOverflow != 0, h[1]&flagUnderflow != 0, h.u32(44)); err != nil {
		return SCSIResponse{}, err
	}
	return p, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *SCSIResponse) AppendHeader(dst []byte, dataLen int) []byte {
	flags := flagFinal | p.Residual.flags(flagOverflow, flagUnderflow) |
		p.BidiResidual.flags(flagBidiOverflow, flagBidiUnderflow)
	dst, h := appendBHS(dst, OpSCSIResponse, flags, dataLen)
	h[2], h[3] = byte(p.Response), p.Status
	h.put16(8, p.StatusQualifier)
	h.put32(16, uint32(p.ITT))
	h.put32(20, p.SNACKTag)
	h.putTargetSNs(p.TargetSNs)
	h.put32(36, uint32(p.ExpDataSN))
	h.put32(40, p.BidiResidual.Count)
	h.put32(44, p.Residual.Count)
	return dst
}

// AppendSenseData appends the data segment of a SCSI Response, or of an Async Message with a SCSI event: SenseLength
// and the sense data. It panics if sense exceeds 65535 bytes; sense data is at most 252 (SPC-5).
func AppendSenseData(dst, sense []byte) []byte {
	if len(sense) > 0xffff {
		panic("pdu: sense data longer than SenseLength can say")
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(sense)))
	return append(dst, sense...)
}

// ParseSenseData splits a data segment as AppendSenseData makes it into the sense data and what follows it. Both are
// part of data.
func ParseSenseData(data []byte) (sense, rest []byte, err error) {
	if len(data) == 0 {
		return nil, nil, nil
	}
	if len(data) < 2 {
		return nil, nil, formatErrorf(RejectInvalidPDUField, "sense data of %d bytes", len(data))
	}
	n := int(binary.BigEndian.Uint16(data))
	if n > len(data)-2 {
		return nil, nil, formatErrorf(RejectInvalidPDUField, "SenseLength %d in %d bytes", n, len(data))
	}
	return data[2 : 2+n : 2+n], data[2+n:], nil
}
