package pdu

import "fmt"

// LoginStage is a stage of the login phase, RFC 7143 section 11.12.3.
type LoginStage uint8

// The stages; 2 is reserved.
const (
	StageSecurity    LoginStage = 0
	StageOperational LoginStage = 1
	StageFullFeature LoginStage = 3
)

func (s LoginStage) String() string {
	switch s {
	case StageSecurity:
		return "SecurityNegotiation"
	case StageOperational:
		return "LoginOperationalNegotiation"
	case StageFullFeature:
		return "FullFeaturePhase"
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// Version is the protocol version that RFC 7143 defines and the only one that exists.
const Version = 0

const (
	shiftCSG  = 2
	maskStage = 0x03
)

// LoginRequest is RFC 7143 section 11.12. It is always immediate. NSG is meaningful iff Transit. Parsing leaves the
// rules of stages to the login phase; see package login.
type LoginRequest struct {
	Transit    bool // T
	Continue   bool // C: the text goes on in the next request
	CSG, NSG   LoginStage
	VersionMax uint8
	VersionMin uint8
	ISID       ISID
	TSIH       TSIH
	ITT        ITT
	CID        CID
	InitiatorSNs
	Data []byte // borrowed; text
}

// ParseLoginRequest parses a Login Request. data is kept.
func ParseLoginRequest(h *Header, ahs, data []byte) (LoginRequest, error) {
	if err := h.expect(OpLoginRequest, ahs, data); err != nil {
		return LoginRequest{}, err
	}
	if err := h.expectITT(); err != nil {
		return LoginRequest{}, err
	}
	return LoginRequest{
		Transit:      h.Final(),
		Continue:     h[1]&flagContinue != 0,
		CSG:          LoginStage(h[1] >> shiftCSG & maskStage),
		NSG:          LoginStage(h[1] & maskStage),
		VersionMax:   h[2],
		VersionMin:   h[3],
		ISID:         ISID(h[8:]),
		TSIH:         TSIH(h.u16(14)),
		ITT:          h.ITT(),
		CID:          CID(h.u16(20)),
		InitiatorSNs: h.initiatorSNs(),
		Data:         data,
	}, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *LoginRequest) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpLoginRequest, loginFlags(p.Transit, p.Continue, p.CSG, p.NSG), dataLen)
	h.setImmediate(true)
	h[2], h[3] = p.VersionMax, p.VersionMin
	copy(h[8:], p.ISID[:])
	h.put16(14, uint16(p.TSIH))
	h.put32(16, uint32(p.ITT))
	h.put16(20, uint16(p.CID))
	h.putInitiatorSNs(p.InitiatorSNs)
	return dst
}

func loginFlags(transit, cont bool, csg, nsg LoginStage) byte {
	return bit(transit, flagFinal) | bit(cont, flagContinue) | byte(csg&maskStage)<<shiftCSG | byte(nsg&maskStage)
}

// LoginResponse is RFC 7143 section 11.13. StatSN, ExpCmdSN and MaxCmdSN are valid iff StatusClass is 0.
type LoginResponse struct {
	Transit       bool // T
	Continue      bool // C: the text goes on in the next response
	CSG, NSG      LoginStage
	VersionMax    uint8
	VersionActive uint8
	ISID          ISID
	TSIH          TSIH
	ITT           ITT
	TargetSNs
	StatusClass  uint8 // 0 success, 1 redirection, 2 initiator error, 3 target error
	StatusDetail uint8
	Data         []byte // borrowed; text
}

// ParseLoginResponse parses a Login Response. data is kept.
func ParseLoginResponse(h *Header, ahs, data []byte) (LoginResponse, error) {
	if err := h.expect(OpLoginResponse, ahs, data); err != nil {
		return LoginResponse{}, err
	}
	return LoginResponse{
		Transit:       h.Final(),
		Continue:      h[1]&flagContinue != 0,
		CSG:           LoginStage(h[1] >> shiftCSG & maskStage),
		NSG:           LoginStage(h[1] & maskStage),
		VersionMax:    h[2],
		VersionActive: h[3],
		ISID:          ISID(h[8:]),
		TSIH:          TSIH(h.u16(14)),
		ITT:           h.ITT(),
		TargetSNs:     h.targetSNs(),
		StatusClass:   h[36],
		StatusDetail:  h[37],
		Data:          data,
	}, nil
}

// AppendHeader appends the BHS for a data segment of dataLen bytes.
func (p *LoginResponse) AppendHeader(dst []byte, dataLen int) []byte {
	dst, h := appendBHS(dst, OpLoginResponse, loginFlags(p.Transit, p.Continue, p.CSG, p.NSG), dataLen)
	h[2], h[3] = p.VersionMax, p.VersionActive
	copy(h[8:], p.ISID[:])
	h.put16(14, uint16(p.TSIH))
	h.put32(16, uint32(p.ITT))
	h.putTargetSNs(p.TargetSNs)
	h[36], h[37] = p.StatusClass, p.StatusDetail
	return dst
}
