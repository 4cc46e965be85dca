package xcopy

import "encoding/binary"

// The descriptors of the Third-party Copy VPD page (SPC-4 7.8.17) that say what EXTENDED COPY does. Each begins with its
// type(2) and the length(2) of what follows, a multiple of 4.

// AppendDescriptors appends those with types below 0100h: Parameter Data (0004h), Supported Descriptors (0008h) and
// Supported CSCD Descriptor IDs (000Ch).
func AppendDescriptors(p []byte) []byte {
	start := len(p)
	p = append(p, make([]byte, 32)...)
	d := p[start:]
	d[1], d[3] = 0x04, 28
	binary.BigEndian.PutUint16(d[8:], CSCDMax)
	binary.BigEndian.PutUint16(d[10:], SegmentMax)
	binary.BigEndian.PutUint32(d[12:], ListMax)

	p = append(p, 0x00, 0x08, 0, 4, 3, typeBlocks, typeOffset, typeCSCD)
	p = append(p, 0x00, 0x0C, 0, 4, 0, 2)
	return binary.BigEndian.AppendUint16(p, Self)
}

// AppendOperations appends General Copy Operations (8001h) and Held Data (C001h), of which there is none.
func AppendOperations(p []byte) []byte {
	start := len(p)
	p = append(p, make([]byte, 36+32)...)
	d := p[start:]
	d[0], d[1], d[3] = 0x80, 0x01, 32
	binary.BigEndian.PutUint32(d[4:], ConcurrentMax)
	binary.BigEndian.PutUint32(d[8:], ConcurrentMax)
	binary.BigEndian.PutUint32(d[12:], SegmentBytesMax)
	d[16] = Granularity
	d = d[36:]
	d[0], d[1], d[3] = 0xC0, 0x01, 28
	return p
}
