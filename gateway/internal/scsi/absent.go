package scsi

// executeAbsent answers a command to a LUN at which nothing is mapped (SAM-5 5.11): INQUIRY says what could be
// there, REPORT LUNS is answered at LUN 0, REQUEST SENSE returns LOGICAL UNIT NOT SUPPORTED as data, and everything
// else ends with it.
func (n *Nexus) executeAbsent(c *Command) {
	op, _ := allOperations.Find(c.CDB)
	if op == nil || len(c.CDB) < len(op.usage) || op.traits&ignoreUA == 0 {
		c.check(senseData{Code: LogicalUnitNotSupported}, false)
		return
	}
	last := len(op.usage) - 1
	field, bad := op.badBit(c.CDB)
	if c.CDB[last]&controlNACA != 0 {
		field, bad = cdbField(last, 2), true
	}
	number, ok := c.LUN.Number()
	zero := ok && number == 0
	switch {
	case bad:
	case op.opcode() == opInquiry:
		field, bad = n.inquiryAbsent(c, zero)
	case op.opcode() == opRequestSense:
		c.replySense(senseData{Code: LogicalUnitNotSupported})
	case op.opcode() == opReportLUNs && zero:
		field, bad = n.replyLUNs(c)
	default:
		c.check(senseData{Code: LogicalUnitNotSupported}, false)
	}
	if bad {
		c.check(senseData{Code: InvalidFieldInCDB, Field: field}, false)
	}
}
