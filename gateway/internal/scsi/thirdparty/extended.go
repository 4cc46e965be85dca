package thirdparty

import (
	"context"
	"errors"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/xcopy"
)

// Sense codes of EXTENDED COPY. The sense key COPY ABORTED says that some of the copy may be done.
const (
	senseAborted      sense.Code = 0x0A0000
	senseUnreachable  sense.Code = 0x0A0804 // UNREACHABLE COPY TARGET
	senseDevice       sense.Code = 0x0A0D01 // THIRD PARTY DEVICE FAILURE
	senseNotReachable sense.Code = 0x0A0D02 // COPY TARGET DEVICE NOT REACHABLE
	senseDeviceType   sense.Code = 0x0A0D03 // INCORRECT COPY TARGET DEVICE TYPE
	senseInexact      sense.Code = 0x0A260A // UNEXPECTED INEXACT SEGMENT
	senseProtected    sense.Code = 0x0A2700 // WRITE PROTECTED
	senseTooLong      sense.Code = 0x052600
)

// copyFault is why a segment was not copied: a sense code and the field of the segment descriptor, or -1.
type copyFault struct {
	code sense.Code
	at   int
}

// Places in a segment descriptor.
const (
	atSource      = 4
	atDestination = 6
	atCount       = 8
	atSourceLBA   = 12
	atDestLBA     = 20
)

// Extended carries out EXTENDED COPY(LID1): the segments in order, until one fails. It returns nil when all are copied.
// list is not empty.
func (m *Manager) Extended(ctx context.Context, r *Request, list []byte) *Failure {
	l, refused := xcopy.Parse(list)
	if refused != nil {
		d := sense.Data{Code: sense.Code(refused.Sense)}
		if refused.At >= 0 {
			d.Field = sense.InData(refused.At, refused.Bit)
		}
		return &Failure{Sense: d}
	}
	r.ID = uint32(l.ID)
	if failure := m.begin(r, kindExtended, l.Usage != xcopy.UsageNone); failure != nil {
		return failure
	}
	return m.segments(ctx, r, l)
}

// segments copies the segments of a list.
func (m *Manager) segments(ctx context.Context, r *Request, l *xcopy.List) *Failure {
	units := make([]*Unit, len(l.CSCDs))
	var others []*Unit
	for i := range l.CSCDs {
		c := &l.CSCDs[i]
		units[i] = r.find(c)
		if u := units[i]; u != nil && u.ID != r.Self.ID {
			others = append(others, u)
		}
	}
	buffer, err := m.borrow(ctx)
	if err != nil {
		return &Failure{Err: err}
	}
	defer m.giveBack(buffer)
	inner, done := r.Running.begin(ctx, others)
	defer done()
	for i := range l.Segments {
		fault := r.segment(inner, l, units, &l.Segments[i], *buffer)
		if ctx.Err() != nil {
			return &Failure{Err: ctx.Err()}
		}
		if fault != nil {
			return fault.failure(i)
		}
		r.entry.advance(1, 0)
	}
	return nil
}

func (f *copyFault) failure(segment int) *Failure {
	d := sense.Data{Code: f.code, Specific: uint64(segment), HasSpecific: true}
	if f.at >= 0 {
		d.Field = sense.InSegment(f.at)
	}
	return &Failure{Sense: d}
}

// find returns the logical unit of a descriptor, or nil.
func (r *Request) find(c *xcopy.CSCD) *Unit {
	if c.Association != 0 || c.CodeSet != 1 || c.DesignatorType != 3 {
		return nil // not a NAA designator of a logical unit
	}
	return r.Find(c.Designator)
}

// unit returns the logical unit that a segment descriptor names at byte at.
func (r *Request) unit(l *xcopy.List, units []*Unit, id uint16, at int) (*Unit, *copyFault) {
	switch {
	case id == xcopy.Self:
		return r.Self, nil
	case int(id) >= len(units):
		return nil, &copyFault{senseUnreachable, at}
	case units[id] == nil:
		return nil, &copyFault{senseNotReachable, at}
	}
	c, u := &l.CSCDs[id], units[id]
	if c.PeripheralType != 0 || c.BlockLength != 0 && c.BlockLength != 1<<u.Shift {
		return nil, &copyFault{senseDeviceType, at}
	}
	return u, nil
}

// segment copies one segment.
func (r *Request) segment(ctx context.Context, l *xcopy.List, units []*Unit, s *xcopy.Segment, buffer []byte) *copyFault {
	source, fault := r.unit(l, units, s.Source, atSource)
	if fault != nil {
		return fault
	}
	destination, fault := r.unit(l, units, s.Destination, atDestination)
	if fault != nil {
		return fault
	}
	length, fault := segmentLength(s, source, destination)
	if fault != nil || length == 0 {
		return fault
	}
	mv := &move{source: source, destination: destination, length: length, buffer: buffer}
	mv.moved = func(n int64) { r.entry.advance(0, n) }
	var ok bool
	if mv.from, ok = source.place(s.SourceLBA, s.SourceOffset, length); !ok {
		return &copyFault{senseAborted, atSourceLBA}
	}
	if mv.to, ok = destination.place(s.DestinationLBA, s.DestinationOffset, length); !ok {
		return &copyFault{senseAborted, atDestLBA}
	}
	if (mv.from|mv.to|length)&(sector-1) != 0 {
		return &copyFault{senseInexact, -1}
	}
	if destination.Protected {
		return &copyFault{senseProtected, atDestination}
	}
	return r.explain(mv.run(ctx))
}

// segmentLength returns how many bytes a segment has. Residual data, which PAD and CAT are about, there never are: what
// does not come out even on both sides is not copied.
func segmentLength(s *xcopy.Segment, source, destination *Unit) (int64, *copyFault) {
	length := int64(s.Bytes)
	if s.ByBlocks {
		counted, other := source, destination
		if s.OfDestination {
			counted, other = destination, source
		}
		length = counted.offset(uint64(s.Blocks))
		if length&(1<<other.Shift-1) != 0 {
			return 0, &copyFault{senseInexact, -1}
		}
	}
	if length > xcopy.SegmentBytesMax {
		return 0, &copyFault{senseTooLong, atCount}
	}
	return length, nil
}

// place returns the byte at which length bytes begin, offset bytes into block lba; ok is false when they are not within
// the capacity.
func (u *Unit) place(lba uint64, offset uint16, length int64) (at int64, ok bool) {
	if lba > u.Blocks {
		return 0, false
	}
	at = u.offset(lba) + int64(offset)
	return at, length <= u.offset(u.Blocks)-at
}

// explain turns an error of a medium into what the initiator is told.
func (r *Request) explain(failed *sideError) *copyFault {
	if failed == nil {
		return nil
	}
	at := atSource
	if failed.writing {
		at = atDestination
	}
	switch {
	case errors.Is(failed.err, errAway):
		return &copyFault{senseNotReachable, at}
	case errors.Is(failed.err, ErrReset):
		return &copyFault{senseDevice, at}
	}
	if code := r.Explain(failed.err); code != 0 {
		return &copyFault{0x0A0000 | sense.Code(code), at}
	}
	return &copyFault{senseDevice, at}
}
