package scsi

import "github.com/ashlar-storage/ashlar/gateway/internal/scsi/opcodes"

// Operation codes that the code asks for by name; all others stand only in the table.
const (
	opRequestSense = 0x03
	opInquiry      = 0x12
	opSanitize     = 0x48
	opReportLUNs   = 0xA0
)

// Recommended command timeouts, seconds.
const (
	timeoutShort  = 10 // answered from memory
	timeoutMedium = 60 // waits for the replicas

	timeoutSanitize = 24 * 60 * 60 // goes over the whole medium
)

// Bits of CDB byte 1 that are ignored; see operation.ignored.
const (
	oldLUN  = 0xE0 // the LOGICAL UNIT NUMBER of SCSI-2
	oldRead = 0x06 // RARC and FUA_NV
	oldFUA  = 0x02 // FUA_NV
)

// Marks of the usage data: a field that is looked at is all ones, one that is not is 0.
const (
	lba  = 0xFF
	len2 = 0xFF
	len4 = 0xFF
)

// allOperations is the table of every supported command. It is immutable.
var allOperations = newOperationList([]operation{
	// 6-byte CDBs
	{"TEST UNIT READY", []byte{0x00, 0, 0, 0, 0, 0}, false, oldLUN, 0, timeoutShort, testUnitReady},
	{"REQUEST SENSE", []byte{0x03, 0x01, 0, 0, 0xFF, 0}, false, oldLUN, dataIn | ignoreUA, timeoutShort, requestSense},
	{"REASSIGN BLOCKS", []byte{0x07, 0x03, 0, 0, 0, 0}, false, 0, dataOut, timeoutShort, reassignBlocks},
	{"READ(6)", []byte{0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0}, false, oldLUN, medium | dataIn, timeoutMedium, read6},
	{"WRITE(6)", []byte{0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0}, false, oldLUN, medium | writes | dataOut, timeoutMedium, write6},
	{"INQUIRY", []byte{0x12, 0x01, 0xFF, 0xFF, 0xFF, 0}, false, oldLUN, dataIn | ignoreUA, timeoutShort, inquiry},
	{"MODE SELECT(6)", []byte{0x15, 0x11, 0, 0, 0xFF, 0}, false, oldLUN, medium | dataOut, timeoutMedium, modeSelect6},
	{"MODE SENSE(6)", []byte{0x1A, 0x08, 0xFF, 0xFF, 0xFF, 0}, false, oldLUN, dataIn, timeoutShort, modeSense6},
	{"RESERVE(6)", []byte{0x16, 0, 0, 0, 0, 0}, false, oldLUN, medium, timeoutShort, reserveUnit},
	{"RELEASE(6)", []byte{0x17, 0, 0, 0, 0, 0}, false, oldLUN, medium, timeoutShort, releaseUnit},
	{"START STOP UNIT", []byte{0x1B, 0x01, 0, 0x0F, 0xF5, 0}, false, oldLUN, 0, timeoutShort, startStopUnit},
	{"SEND DIAGNOSTIC", []byte{0x1D, 0x17, 0, 0, 0, 0}, false, 0, 0, timeoutShort, sendDiagnostic},

	// 10-byte CDBs
	{"READ CAPACITY(10)", opcodes.CDB10(0x25, 0, 0, 0, 0), false, oldLUN, dataIn, timeoutShort, readCapacity10},
	{"READ(10)", opcodes.CDB10(0x28, 0x18, lba, 0x3F, len2), false, oldRead, medium | dataIn, timeoutMedium, read10},
	{"WRITE(10)", opcodes.CDB10(0x2A, 0x18, lba, 0x3F, len2), false, oldFUA, medium | writes | dataOut, timeoutMedium, write10},
	{"WRITE AND VERIFY(10)", opcodes.CDB10(0x2E, 0x16, lba, 0x3F, len2), false, 0, medium | writes | dataOut, timeoutMedium, writeAndVerify10},
	{"VERIFY(10)", opcodes.CDB10(0x2F, 0x16, lba, 0x3F, len2), false, 0, medium | dataOut, timeoutMedium, verify10},
	{"PRE-FETCH(10)", opcodes.CDB10(0x34, 0x02, lba, 0x3F, len2), false, 0, 0, timeoutShort, preFetch10},
	{"SYNCHRONIZE CACHE(10)", opcodes.CDB10(0x35, 0x06, lba, 0x3F, len2), false, 0, 0, timeoutShort, synchronizeCache10},
	{"READ DEFECT DATA(10)", []byte{0x37, 0, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0}, false, oldLUN, dataIn, timeoutShort, readDefectData10},
	{"WRITE SAME(10)", opcodes.CDB10(0x41, 0x08, lba, 0x3F, len2), false, 0, medium | writes | dataOut, timeoutMedium, writeSame10},
	{"UNMAP", opcodes.CDB10(0x42, 0, 0, 0x3F, len2), false, 0, medium | writes | dataOut, timeoutMedium, unmap},
	{"SANITIZE, OVERWRITE", []byte{0x48, 0xA1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0}, true, 0, medium | writes | dataOut, timeoutSanitize, sanitizeOverwrite},
	{"SANITIZE, BLOCK ERASE", []byte{0x48, 0xA2, 0, 0, 0, 0, 0, 0, 0, 0}, true, 0, medium | writes, timeoutSanitize, sanitizeBlockErase},
	{"SANITIZE, EXIT FAILURE MODE", []byte{0x48, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0}, true, 0xA0, medium | writes, timeoutShort, sanitizeExitFailure},
	{"LOG SENSE", []byte{0x4D, 0, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0}, false, oldLUN, medium | dataIn | whileErased, timeoutShort, logSense},
	{"MODE SELECT(10)", opcodes.CDB10(0x55, 0x11, 0, 0, len2), false, oldLUN, medium | dataOut, timeoutMedium, modeSelect10},
	{"MODE SENSE(10)", []byte{0x5A, 0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0}, false, oldLUN, dataIn, timeoutShort, modeSense10},

	{"RESERVE(10)", []byte{0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false, oldLUN, medium, timeoutShort, reserveUnit},
	{"RELEASE(10)", []byte{0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false, oldLUN, medium, timeoutShort, releaseUnit},
	{"PERSISTENT RESERVE IN, READ KEYS", opcodes.CDBReserve(0x5E, 0, 0, 0), true, 0, medium | dataIn, timeoutMedium, readKeys},
	{"PERSISTENT RESERVE IN, READ RESERVATION", opcodes.CDBReserve(0x5E, 1, 0, 0), true, 0, medium | dataIn, timeoutMedium, readReservation},
	{"PERSISTENT RESERVE IN, REPORT CAPABILITIES", opcodes.CDBReserve(0x5E, 2, 0, 0), true, 0, medium | dataIn, timeoutMedium, reportCapabilities},
	{"PERSISTENT RESERVE IN, READ FULL STATUS", opcodes.CDBReserve(0x5E, 3, 0, 0), true, 0, medium | dataIn, timeoutMedium, readFullStatus},
	{"PERSISTENT RESERVE OUT, REGISTER", opcodes.CDBReserve(0x5F, 0, 0xFF, len4), true, 0, medium | dataOut, timeoutMedium, persistentReserveOut},
	{"PERSISTENT RESERVE OUT, RESERVE", opcodes.CDBReserve(0x5F, 1, 0xFF, len4), true, 0, medium | dataOut, timeoutMedium, persistentReserveOut},
	{"PERSISTENT RESERVE OUT, RELEASE", opcodes.CDBReserve(0x5F, 2, 0xFF, len4), true, 0, medium | dataOut, timeoutMedium, persistentReserveOut},
	{"PERSISTENT RESERVE OUT, CLEAR", opcodes.CDBReserve(0x5F, 3, 0xFF, len4), true, 0, medium | dataOut, timeoutMedium, persistentReserveOut},
	{"PERSISTENT RESERVE OUT, PREEMPT", opcodes.CDBReserve(0x5F, 4, 0xFF, len4), true, 0, medium | dataOut, timeoutMedium, persistentReserveOut},
	{"PERSISTENT RESERVE OUT, PREEMPT AND ABORT", opcodes.CDBReserve(0x5F, 5, 0xFF, len4), true, 0, medium | dataOut, timeoutMedium, persistentReserveOut},
	{"PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", opcodes.CDBReserve(0x5F, 6, 0xFF, len4), true, 0, medium | dataOut, timeoutMedium, persistentReserveOut},
	{"PERSISTENT RESERVE OUT, REGISTER AND MOVE", opcodes.CDBReserve(0x5F, 7, 0xFF, len4), true, 0, medium | dataOut, timeoutMedium, persistentReserveOut},

	// 16-byte CDBs
	{"EXTENDED COPY(LID1)", opcodes.CDBCopy(0x83, 0x00, 0, 0, 0), true, 0, medium | copies | dataOut, timeoutMedium, extendedCopy},
	{"POPULATE TOKEN", opcodes.CDBCopy(0x83, 0x10, 0, 0xFF, 0x3F), true, 0, medium | dataOut, timeoutMedium, populateToken},
	{"WRITE USING TOKEN", opcodes.CDBCopy(0x83, 0x11, 0, 0xFF, 0x3F), true, 0, medium | writes | dataOut, timeoutMedium, writeUsingToken},
	{"RECEIVE COPY STATUS(LID1)", opcodes.CDBCopy(0x84, 0x00, 0xFF, 0, 0), true, 0, dataIn, timeoutShort, receiveCopyStatus},
	{"RECEIVE COPY OPERATING PARAMETERS", opcodes.CDBCopy(0x84, 0x03, 0xFF, 0, 0), true, 0, dataIn, timeoutShort, receiveCopyParameters},
	{"RECEIVE COPY FAILURE DETAILS(LID1)", opcodes.CDBCopy(0x84, 0x04, 0xFF, 0, 0), true, 0, dataIn, timeoutShort, receiveCopyFailure},
	{"RECEIVE ROD TOKEN INFORMATION", []byte{0x84, 0x07, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0}, true, 0, dataIn, timeoutShort, receiveRODTokenInformation},
	{"READ(16)", opcodes.CDB16(0x88, 0x18, lba, len4, 0x3F), false, oldRead, medium | dataIn, timeoutMedium, read16},
	{"COMPARE AND WRITE", []byte{0x89, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0x3F, 0}, false, oldFUA, medium | writes | dataOut, timeoutMedium, compareAndWrite},
	{"WRITE(16)", opcodes.CDB16(0x8A, 0x18, lba, len4, 0x3F), false, oldFUA, medium | writes | dataOut, timeoutMedium, write16},
	{"ORWRITE(16)", opcodes.CDB16(0x8B, 0x18, lba, len4, 0x3F), false, oldFUA, medium | writes | dataOut, timeoutMedium, orwrite16},
	{"WRITE AND VERIFY(16)", opcodes.CDB16(0x8E, 0x16, lba, len4, 0x3F), false, 0, medium | writes | dataOut, timeoutMedium, writeAndVerify16},
	{"VERIFY(16)", opcodes.CDB16(0x8F, 0x16, lba, len4, 0x3F), false, 0, medium | dataOut, timeoutMedium, verify16},
	{"PRE-FETCH(16)", opcodes.CDB16(0x90, 0x02, lba, len4, 0x3F), false, 0, 0, timeoutShort, preFetch16},
	{"SYNCHRONIZE CACHE(16)", opcodes.CDB16(0x91, 0x06, lba, len4, 0x3F), false, 0, 0, timeoutShort, synchronizeCache16},
	{"WRITE SAME(16)", opcodes.CDB16(0x93, 0x09, lba, len4, 0x3F), false, 0, medium | writes | dataOut, timeoutMedium, writeSame16},
	{"WRITE ATOMIC(16)", []byte{0x9C, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0x3F, 0}, false, 0, medium | writes | dataOut, timeoutMedium, writeAtomic16},
	{"READ CAPACITY(16)", opcodes.CDB16(0x9E, 0x10, 0, len4, 0), true, 0, dataIn, timeoutShort, readCapacity16},
	{"GET LBA STATUS", opcodes.CDB16(0x9E, 0x12, lba, len4, 0), true, 0, medium | dataIn, timeoutMedium, getLBAStatus},

	// 12-byte CDBs
	{"REPORT LUNS", []byte{0xA0, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0}, false, oldLUN, dataIn | ignoreUA, timeoutShort, reportLUNs},
	{"REPORT TARGET PORT GROUPS", []byte{0xA3, 0xEA, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0}, true, 0, dataIn | whileErased, timeoutShort, reportTargetPortGroups},
	{"REPORT SUPPORTED OPERATION CODES", []byte{0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0}, true, 0, dataIn | whileErased, timeoutShort, reportSupportedOperationCodes},
	{"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", []byte{0xA3, 0x0D, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0}, true, 0, dataIn | whileErased, timeoutShort, reportSupportedTaskManagementFunctions},
	{"READ(12)", opcodes.CDB12(0xA8, 0x18), false, oldRead, medium | dataIn, timeoutMedium, read12},
	{"WRITE(12)", opcodes.CDB12(0xAA, 0x18), false, oldFUA, medium | writes | dataOut, timeoutMedium, write12},
	{"WRITE AND VERIFY(12)", opcodes.CDB12(0xAE, 0x16), false, 0, medium | writes | dataOut, timeoutMedium, writeAndVerify12},
	{"READ DEFECT DATA(12)", []byte{0xB7, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0}, false, 0, dataIn, timeoutShort, readDefectData12},
	{"VERIFY(12)", opcodes.CDB12(0xAF, 0x16), false, 0, medium | dataOut, timeoutMedium, verify12},
})
