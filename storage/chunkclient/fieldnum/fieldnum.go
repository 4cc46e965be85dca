package fieldnum

// Fields of Requests, what a client sends.
const (
	RequestsVersion  = 1
	RequestsRequests = 2
)

// Fields of Request.
const (
	RequestID               = 1
	RequestOp               = 2
	RequestCopyset          = 3
	RequestVolume           = 4
	RequestChunk            = 5
	RequestOffset           = 6
	RequestLength           = 7
	RequestInitiator        = 8
	RequestFence            = 9
	RequestAccessGeneration = 10
	RequestSeq              = 11
	RequestLowWater         = 12
	RequestData             = 13
	RequestCRCs             = 14
)

// Fields of Fence.
const (
	FenceEpoch      = 1
	FenceGeneration = 2
)

// Fields of Responses, what a server sends.
const (
	ResponsesVersion   = 1
	ResponsesResponses = 2
)

// Fields of Response.
const (
	ResponseID               = 1
	ResponseStatus           = 2
	ResponseData             = 3
	ResponseCRCs             = 4
	ResponseLeader           = 5
	ResponseFence            = 6
	ResponseAccessGeneration = 7
	ResponseOffset           = 8
	ResponseMessage          = 9
	ResponseRuns             = 10
)

// Fields of Run.
const (
	RunOffset    = 1
	RunLength    = 2
	RunAllocated = 3
)
