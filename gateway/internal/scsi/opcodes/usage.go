package opcodes

// CDB usage data of commands whose fields are where most have them. A parameter for a field is what each of its bytes has: 0xFF
// if it is looked at, 0 if it has to be zero.

// CDB10 is the usage data of OPCODE, byte 1, LBA(4), GROUP NUMBER, LENGTH(2), CONTROL.
func CDB10(opcode, options, lba, group, length byte) []byte {
	return []byte{opcode, options, lba, lba, lba, lba, group, length, length, 0}
}

// CDBReserve is the usage data of OPCODE, SERVICE ACTION, SCOPE and TYPE, 0(2), LENGTH(4, or its low 2), CONTROL.
func CDBReserve(opcode, action, scopeType, length byte) []byte {
	return []byte{opcode, action, scopeType, 0, 0, length, length, 0xFF, 0xFF, 0}
}

// CDBCopy is the usage data of OPCODE, SERVICE ACTION, LIST IDENTIFIER, reserved(3), LIST IDENTIFIER(4), LENGTH(4), GROUP
// NUMBER, CONTROL; the list identifier is in one of the two places.
func CDBCopy(opcode, action, list1, list4, group byte) []byte {
	return []byte{
		opcode, action, list1, 0, 0, 0, list4, list4, list4, list4,
		0xFF, 0xFF, 0xFF, 0xFF, group, 0,
	}
}

// CDB12 is the usage data of OPCODE, byte 1, LBA(4), LENGTH(4), GROUP NUMBER, CONTROL.
func CDB12(opcode, options byte) []byte {
	return []byte{opcode, options, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0}
}

// CDB16 is the usage data of OPCODE, byte 1, LBA(8), LENGTH(4), GROUP NUMBER, CONTROL.
func CDB16(opcode, options, lba, length, group byte) []byte {
	return []byte{
		opcode, options, lba, lba, lba, lba, lba, lba, lba, lba,
		length, length, length, length, group, 0,
	}
}
