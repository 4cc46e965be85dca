package scsi

import (
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/thirdparty"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/vpd"
)

// vpdPages are the vital product data pages, in ascending order.
var vpdPages = [...]byte{
	vpd.PageSupported, vpd.PageSerial, vpd.PageIdentification, vpd.PageExtended, vpd.PageModePolicy,
	vpd.PageThirdParty, vpd.PageBlockLimits, vpd.PageBlockCharacteristics, vpd.PageProvisioning,
}

// inquiryVPD answers INQUIRY with EVPD.
func (a *attachment) inquiryVPD(c *Command, page byte, allocation uint64) {
	id := a.unit.Config().Identity
	p := vpd.Begin(c.small[:0], page)
	switch page {
	case vpd.PageSupported:
		p = append(p, vpdPages[:]...)
	case vpd.PageSerial:
		p = append(p, id.Serial...)
	case vpd.PageIdentification:
		p = vpd.AppendIdentification(p, id, a.nexus.config.TargetPort)
	case vpd.PageExtended:
		p = vpd.AppendExtended(p, SenseMax)
	case vpd.PageModePolicy:
		p = vpd.AppendModePolicy(p)
	case vpd.PageThirdParty:
		p = thirdparty.AppendPage(p, a.unit.BlockLength())
	case vpd.PageBlockLimits:
		p = blockLimits(a.unit).Append(p)
	case vpd.PageBlockCharacteristics:
		p = vpd.AppendCharacteristics(p)
	case vpd.PageProvisioning:
		p = vpd.AppendProvisioning(p, byte(thresholdSet-a.unit.Shift()))
	default:
		a.refuse(c, InvalidFieldInCDB, cdbField(2, 7))
		return
	}
	c.reply(vpd.End(p), allocation)
}

// thresholdSet is what one threshold set resource holds (SBC-3 6.5.4), log2 of bytes: the unit in which space runs
// out when AttentionSpaceThreshold is established. The thresholds are the pool's; an initiator can not set them.
const thresholdSet = 24

// blockLimits returns what the Block Limits page says. A granularity of ProvisioningBlock is both the physical block and
// the unit of UNMAP.
func blockLimits(u *LogicalUnit) vpd.BlockLimits {
	l, shift := u.Config().Limits, u.Shift()
	granularity, atomic := uint32(ProvisioningBlock>>shift), uint32(l.MaxAtomic>>shift)
	return vpd.BlockLimits{
		CompareAndWrite: compareAndWriteMax, Granularity: uint16(granularity),
		Transfer: uint32(l.MaxTransfer >> shift), OptimalTransfer: uint32(l.OptimalTransfer >> shift),
		Unmap: uint32(l.MaxUnmap >> shift), UnmapDescriptors: uint32(l.MaxUnmapDescriptors), UnmapGranularity: granularity,
		WriteSame: uint64(l.MaxWriteSame >> shift),
		Atomic:    atomic, AtomicAlignment: atomic, AtomicGranularity: atomic,
	}
}
