package login

// The keys, RFC 7143 section 13 and 12.1.
const (
	keyAuthMethod               = "AuthMethod"
	keyCHAPA                    = "CHAP_A"
	keyCHAPC                    = "CHAP_C"
	keyCHAPI                    = "CHAP_I"
	keyCHAPN                    = "CHAP_N"
	keyCHAPR                    = "CHAP_R"
	keyDataDigest               = "DataDigest"
	keyDataPDUInOrder           = "DataPDUInOrder"
	keyDataSequenceInOrder      = "DataSequenceInOrder"
	keyDefaultTime2Retain       = "DefaultTime2Retain"
	keyDefaultTime2Wait         = "DefaultTime2Wait"
	keyErrorRecoveryLevel       = "ErrorRecoveryLevel"
	keyFirstBurstLength         = "FirstBurstLength"
	keyHeaderDigest             = "HeaderDigest"
	keyIFMarker                 = "IFMarker"
	keyIFMarkInt                = "IFMarkInt"
	keyImmediateData            = "ImmediateData"
	keyInitialR2T               = "InitialR2T"
	keyInitiatorAlias           = "InitiatorAlias"
	keyInitiatorName            = "InitiatorName"
	keyISCSIProtocolLevel       = "iSCSIProtocolLevel"
	keyMaxBurstLength           = "MaxBurstLength"
	keyMaxConnections           = "MaxConnections"
	keyMaxOutstandingR2T        = "MaxOutstandingR2T"
	keyMaxRecvDataSegmentLength = "MaxRecvDataSegmentLength"
	keyNodeArchitecture         = "X#NodeArchitecture"
	keyOFMarker                 = "OFMarker"
	keyOFMarkInt                = "OFMarkInt"
	keySendTargets              = "SendTargets"
	keySessionType              = "SessionType"
	keyTargetAddress            = "TargetAddress"
	keyTargetAlias              = "TargetAlias"
	keyTargetName               = "TargetName"
	keyTargetPortalGroupTag     = "TargetPortalGroupTag"
	keyTaskReporting            = "TaskReporting"
)

// The constants that answer a key, RFC 7143 section 6.2, and the booleans.
const (
	answerIrrelevant    = "Irrelevant"
	answerNotUnderstood = "NotUnderstood"
	answerReject        = "Reject"
	valueYes            = "Yes"
	valueNo             = "No"
	valueNone           = "None"
	valueCHAP           = "CHAP"
)

// keyUse says when and by whom a key may be sent.
type keyUse uint8

const (
	useOperational keyUse = 1 << iota // negotiated by the negotiation of this package
	useLeading                        // only on the first connection of a session
	useNormal                         // Irrelevant in a discovery session
	useFullFeature                    // may be sent after the login
	useTargetOnly                     // only a target declares it
	useIdentity                       // in the first request of a login
	useSecurity                       // in SecurityNegotiation
)

// keyUses has every key that is understood.
var keyUses = map[string]keyUse{
	keyAuthMethod:               useSecurity,
	keyCHAPA:                    useSecurity,
	keyCHAPC:                    useSecurity,
	keyCHAPI:                    useSecurity,
	keyCHAPN:                    useSecurity,
	keyCHAPR:                    useSecurity,
	keyDataDigest:               useOperational,
	keyDataPDUInOrder:           useOperational | useLeading | useNormal,
	keyDataSequenceInOrder:      useOperational | useLeading | useNormal,
	keyDefaultTime2Retain:       useOperational | useLeading,
	keyDefaultTime2Wait:         useOperational | useLeading,
	keyErrorRecoveryLevel:       useOperational | useLeading,
	keyFirstBurstLength:         useOperational | useLeading | useNormal,
	keyHeaderDigest:             useOperational,
	keyIFMarker:                 useOperational,
	keyIFMarkInt:                useOperational,
	keyImmediateData:            useOperational | useLeading | useNormal,
	keyInitialR2T:               useOperational | useLeading | useNormal,
	keyInitiatorAlias:           useFullFeature,
	keyInitiatorName:            useIdentity,
	keyISCSIProtocolLevel:       useOperational | useLeading | useNormal,
	keyMaxBurstLength:           useOperational | useLeading | useNormal,
	keyMaxConnections:           useOperational | useLeading | useNormal,
	keyMaxOutstandingR2T:        useOperational | useLeading | useNormal,
	keyMaxRecvDataSegmentLength: useFullFeature,
	keyNodeArchitecture:         useFullFeature,
	keyOFMarker:                 useOperational,
	keyOFMarkInt:                useOperational,
	keySendTargets:              useFullFeature,
	keySessionType:              useIdentity,
	keyTargetAddress:            useTargetOnly,
	keyTargetAlias:              useTargetOnly,
	keyTargetName:               useIdentity,
	keyTargetPortalGroupTag:     useTargetOnly,
	keyTaskReporting:            useOperational | useLeading | useNormal,
}
