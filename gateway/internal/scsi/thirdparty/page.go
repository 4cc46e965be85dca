package thirdparty

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/odx"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/xcopy"
)

// commands is the Supported Commands descriptor (0001h) of the Third-party Copy page: operation codes, each with the
// number of its service actions and these.
var commands = [...]byte{
	0x00, 0x01, 0, 12, 11,
	0x83, 3, 0x00, 0x10, 0x11, // EXTENDED COPY(LID1), POPULATE TOKEN, WRITE USING TOKEN
	0x84, 4, 0x00, 0x03, 0x04, 0x07, // RECEIVE COPY RESULTS, RECEIVE ROD TOKEN INFORMATION
}

// AppendPage appends what follows the header of the Third-party Copy page (SPC-4 7.8.17), for a logical unit with blocks
// of blockLength bytes. Descriptors ascend by type.
func AppendPage(p []byte, blockLength int) []byte {
	p = odx.AppendLimits(p, blockLength)
	p = append(p, commands[:]...)
	p = xcopy.AppendDescriptors(p)
	p = odx.AppendTypes(p)
	return xcopy.AppendOperations(p)
}
