package vpd

import "encoding/binary"

// VPD page codes.
const (
	PageSupported            = 0x00
	PageSerial               = 0x80
	PageIdentification       = 0x83
	PageExtended             = 0x86 // Extended INQUIRY Data
	PageModePolicy           = 0x87 // Mode Page Policy
	PageThirdParty           = 0x8F // Third-party Copy
	PageBlockLimits          = 0xB0
	PageBlockCharacteristics = 0xB1
	PageProvisioning         = 0xB2 // Logical Block Provisioning
)

// Begin appends the header of a page of a disk; End completes it when the page's own bytes are there.
func Begin(p []byte, page byte) []byte { return append(p, Disk, page, 0, 0) }

// End writes the length of the page that p consists of.
func End(p []byte) []byte {
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-4))
	return p
}

// AppendExtended appends what follows the header of the Extended INQUIRY Data page (SPC-4 7.8.7), 60 bytes. senseMax is
// the longest sense data that the device server makes.
//
//	4 no microcode, no protection  5 UASK GROUP PRIOR HEAD(2) ORD(1) SIMP(0)  6 WU CRD NV V  7 NO_PI_CHK P_I_I LUICLR
//	8 R_SUP CBCS  9 microcode  10 self-test minutes(2)  12 POA HRA VSA  13 MAXIMUM SUPPORTED SENSE DATA LENGTH  14 zero
//
// All three task attributes are kept. There is neither a volatile cache (V_SUP) nor one that outlives power (NV_SUP).
func AppendExtended(p []byte, senseMax byte) []byte {
	start := len(p)
	p = append(p, make([]byte, 0x3C)...)
	p[start+1] = 0x07
	p[start+9] = senseMax
	return p
}

// AppendModePolicy appends what follows the header of the Mode Page Policy page (SPC-4 7.8), one descriptor:
// POLICY PAGE CODE 3Fh and POLICY SUBPAGE CODE FFh for all mode pages, MODE PAGE POLICY 00b. They are shared by all nexuses
// through all ports, and with no other logical unit (MLUS=0).
func AppendModePolicy(p []byte) []byte { return append(p, 0x3F, 0xFF, 0x00, 0) }

// AppendCharacteristics appends what follows the header of the Block Device Characteristics page (SBC-4 6.6.2), 60
// bytes.
//
//	4 MEDIUM ROTATION RATE(2): 1 does not rotate  6 PRODUCT TYPE  7 WABEREQ(7..6) WACEREQ(5..4) FORM FACTOR(3..0)
//	8 ZONED(5..4) FUAB(1) VBULS(0)
//
// WABEREQ 01b: after a block erase blocks are read without an error. VBULS: VERIFY goes over unmapped blocks.
func AppendCharacteristics(p []byte) []byte {
	start := len(p)
	p = append(p, make([]byte, 0x3C)...)
	p[start+1] = 1
	p[start+3] = 0x40
	p[start+4] = 0x01
	return p
}

// AppendProvisioning appends what follows the header of the Logical Block Provisioning page (SBC-4 6.6.7), 4 bytes:
// THRESHOLD EXPONENT, which is log2 of the logical blocks of one threshold set; LBPU LBPWS LBPWS10 LBPRZ=001b, neither
// ANC_SUP nor DP; PROVISIONING TYPE thin; no THRESHOLD PERCENTAGE.
func AppendProvisioning(p []byte, exponent byte) []byte {
	return append(p, exponent, 0xE4, 0x02, 0)
}

// BlockLimits are the fields of the Block Limits page, in logical blocks unless they say otherwise.
type BlockLimits struct {
	CompareAndWrite   uint8
	Granularity       uint16 // OPTIMAL TRANSFER LENGTH GRANULARITY
	Transfer          uint32
	OptimalTransfer   uint32
	Unmap             uint32
	UnmapDescriptors  uint32 // a number
	UnmapGranularity  uint32 // its alignment is 0
	WriteSame         uint64
	Atomic            uint32 // MAXIMUM ATOMIC TRANSFER LENGTH
	AtomicAlignment   uint32
	AtomicGranularity uint32
}

// Append appends what follows the header of the Block Limits page (SBC-4 6.6.3), 60 bytes:
//
//	 4 WSNZ(0)  5 COMPARE AND WRITE  6 granularity(2)  8 transfer(4)  12 optimal(4)  16 prefetch(4)  20 unmap(4)
//	24 unmap descriptors(4)  28 unmap granularity(4)  32 UGAVALID alignment(4)  36 write same(8)
//	44 atomic transfer(4)  48 atomic alignment(4)  52 atomic granularity(4)  56 with boundary(4)  60 boundary(4)
func (l BlockLimits) Append(p []byte) []byte {
	start := len(p) - 4
	p = append(p, make([]byte, 0x3C)...)
	d := p[start:]
	d[4] = 0x01 // WSNZ: a WRITE SAME of length 0 is refused, it does not mean to the end
	d[5] = l.CompareAndWrite
	binary.BigEndian.PutUint16(d[6:], l.Granularity)
	binary.BigEndian.PutUint32(d[8:], l.Transfer)
	binary.BigEndian.PutUint32(d[12:], l.OptimalTransfer)
	binary.BigEndian.PutUint32(d[20:], l.Unmap)
	binary.BigEndian.PutUint32(d[24:], l.UnmapDescriptors)
	binary.BigEndian.PutUint32(d[28:], l.UnmapGranularity)
	binary.BigEndian.PutUint32(d[32:], 1<<31)
	binary.BigEndian.PutUint64(d[36:], l.WriteSame)
	binary.BigEndian.PutUint32(d[44:], l.Atomic)
	binary.BigEndian.PutUint32(d[48:], l.AtomicAlignment)
	binary.BigEndian.PutUint32(d[52:], l.AtomicGranularity)
	return p
}
