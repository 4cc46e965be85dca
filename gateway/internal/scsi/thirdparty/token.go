package thirdparty

import (
	"context"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/odx"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/sense"
)

// zeroBytesMax is how much the zero token writes at a time, in bytes.
const zeroBytesMax = 16 << 20

// senseRevoked is INVALID TOKEN OPERATION, TOKEN REVOKED: the source is not any more what the token stands for.
const senseRevoked sense.Code = 0x052306

// refusal makes a Failure of why a parameter list or a token can not be used.
func refusal(r *odx.Refusal) *Failure {
	d := sense.Data{Code: sense.Code(r.Sense)}
	if r.At >= 0 {
		d.Field = sense.InData(r.At, -1)
	}
	return &Failure{Sense: d}
}

// Populate carries out POPULATE TOKEN: it reads the ranges and makes a token for what they hold. list is not empty. IMMED
// changes nothing: the status comes when the token is there, well within the time that a synchronous command has.
func (m *Manager) Populate(ctx context.Context, r *Request, list []byte) *Failure {
	l, refused := odx.ParsePopulate(list)
	if refused != nil {
		return refusal(refused)
	}
	if failure := m.begin(r, kindPopulate, true); failure != nil {
		return failure
	}
	return m.populate(ctx, r, l)
}

// populate carries out POPULATE TOKEN by its list.
func (m *Manager) populate(ctx context.Context, r *Request, l *odx.Populate) *Failure {
	u := r.Self
	blocks, refused := l.CheckRanges(u.Blocks, odx.TransferMax>>u.Shift)
	if refused != nil {
		return refusal(refused)
	}
	buffer, err := m.borrow(ctx)
	if err != nil {
		return &Failure{Err: err}
	}
	defer m.giveBack(buffer)
	c := &odx.Content{
		Unit: u.NAA, BlockLength: 1 << u.Shift, PhysicalExponent: u.Physical, Blocks: blocks, Ranges: l.Ranges,
	}
	length := u.offset(blocks)
	for at := int64(0); at < length; at += odx.PieceLength {
		p := (*buffer)[:min(length-at, odx.PieceLength)]
		if err := readContent(ctx, u, c, p, at); err != nil {
			return &Failure{Err: err}
		}
		c.Digests = append(c.Digests, odx.DigestOf(p))
	}
	token, refused := m.tokens.Add(r.Owner, c, l.Timeout)
	if refused != nil {
		return refusal(refused)
	}
	r.entry.populated(token, uint64(length))
	return nil
}

// readContent fills p with what c holds from byte at on.
func readContent(ctx context.Context, u *Unit, c *odx.Content, p []byte, at int64) error {
	var room [8]odx.Range
	for _, part := range odx.Cut(room[:0], c.Ranges, uint64(at)>>u.Shift, uint64(len(p))>>u.Shift) {
		n := u.offset(uint64(part.Blocks))
		if err := fetch(ctx, u.Medium, p[:n], u.offset(part.LBA)); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Write carries out WRITE USING TOKEN: what the token stands for, from the offset on, goes to the ranges. Each piece is
// read from the source and written only if it is what it was when the token was made; else the token has ended. list is
// not empty. IMMED changes nothing.
func (m *Manager) Write(ctx context.Context, r *Request, list []byte) *Failure {
	l, refused := odx.ParseWrite(list)
	if refused != nil {
		return refusal(refused)
	}
	if failure := m.begin(r, kindWrite, true); failure != nil {
		return failure
	}
	return m.write(ctx, r, l)
}

// write carries out WRITE USING TOKEN by its list.
func (m *Manager) write(ctx context.Context, r *Request, l *odx.Write) *Failure {
	u := r.Self
	blocks, refused := l.CheckRanges(u.Blocks, odx.TransferMax>>u.Shift)
	if refused == nil {
		refused = l.Token.Check()
	}
	if refused != nil {
		return refusal(refused)
	}
	if l.Token.Zero() {
		return r.zero(ctx, l.Ranges)
	}
	c, refused := m.tokens.Find(&l.Token)
	if refused != nil {
		return refusal(refused)
	}
	source := r.Find(c.Unit[:])
	if source == nil || 1<<source.Shift != c.BlockLength {
		return refusal(odx.Unknown()) // the initiator is told no more than of a token that nobody made
	}
	size := c.Blocks * uint64(c.BlockLength)
	if l.Offset > size>>u.Shift || blocks > size>>u.Shift-l.Offset {
		return refusal(odx.OffsetBeyond())
	}
	buffer, err := m.borrow(ctx)
	if err != nil {
		return &Failure{Err: err}
	}
	defer m.giveBack(buffer)
	w := &tokenWrite{Request: r, m: m, list: l, content: c, source: source, buffer: *buffer}
	if !c.Known() {
		if failure := w.adopt(ctx); failure != nil {
			return failure
		}
	}
	if failure := w.run(ctx, u.offset(l.Offset), u.offset(blocks)); failure != nil {
		return failure
	}
	if l.Delete {
		m.tokens.Delete(&l.Token)
	}
	return nil
}

// zero makes the ranges zero.
func (r *Request) zero(ctx context.Context, ranges []odx.Range) *Failure {
	u := r.Self
	for _, part := range ranges {
		off, length := u.offset(part.LBA), u.offset(uint64(part.Blocks))
		for length > 0 {
			n := min(length, zeroBytesMax)
			if failed := allowed(ctx, u, u); failed != nil {
				return r.fail(failed)
			}
			if err := u.Medium.Zero(ctx, off, n); err != nil {
				return &Failure{Err: err, Writing: true}
			}
			r.entry.advance(0, n)
			off, length = off+n, length-n
		}
	}
	return nil
}

// tokenWrite is one WRITE USING TOKEN under way.
type tokenWrite struct {
	*Request
	m       *Manager
	list    *odx.Write
	content *odx.Content
	source  *Unit
	buffer  []byte
}

// adopt reads all that a token of another gateway stands for. If it is what it was, the token is one of this gateway from now on.
func (w *tokenWrite) adopt(ctx context.Context) *Failure {
	c := w.content
	for _, part := range c.Ranges {
		if part.LBA > w.source.Blocks || uint64(part.Blocks) > w.source.Blocks-part.LBA {
			return refusal(odx.Unknown())
		}
	}
	var digests []odx.Digest
	size := int64(c.Blocks * uint64(c.BlockLength))
	for at := int64(0); at < size; at += odx.PieceLength {
		if failed := allowed(ctx, w.source, w.Self); failed != nil {
			return w.fail(failed)
		}
		p := w.buffer[:min(size-at, odx.PieceLength)]
		if err := readContent(ctx, w.source, c, p, at); err != nil {
			return w.fail(&sideError{err, false})
		}
		digests = append(digests, odx.DigestOf(p))
	}
	whole, same := c.Whole(digests)
	if !same {
		w.m.tokens.Delete(&w.list.Token)
		return &Failure{Sense: sense.Data{Code: senseRevoked, Field: sense.InData(16, -1)}}
	}
	w.m.tokens.Adopt(w.Owner, &w.list.Token, whole)
	w.content = whole
	return nil
}

// run writes length bytes of the content from byte from on.
func (w *tokenWrite) run(ctx context.Context, from, length int64) *Failure {
	size := int64(w.content.Blocks * uint64(w.content.BlockLength))
	for at := from; at < from+length; {
		if failed := allowed(ctx, w.source, w.Self); failed != nil {
			return w.fail(failed)
		}
		piece := at / odx.PieceLength
		begin := piece * odx.PieceLength
		p := w.buffer[:min(size-begin, odx.PieceLength)]
		if err := readContent(ctx, w.source, w.content, p, begin); err != nil {
			return w.fail(&sideError{err, false})
		}
		if odx.DigestOf(p) != w.content.Digests[piece] {
			w.m.tokens.Delete(&w.list.Token)
			return &Failure{Sense: sense.Data{Code: senseRevoked, Field: sense.InData(16, -1)}}
		}
		n := min(begin+int64(len(p)), from+length) - at
		if err := w.write(ctx, p[at-begin:at-begin+n], at-from); err != nil {
			return &Failure{Err: err, Writing: true}
		}
		at += n
	}
	return nil
}

// write writes p to the ranges of the list, skip bytes after their begin.
func (w *tokenWrite) write(ctx context.Context, p []byte, skip int64) error {
	u := w.Self
	var room [8]odx.Range
	for _, part := range odx.Cut(room[:0], w.list.Ranges, uint64(skip)>>u.Shift, uint64(len(p))>>u.Shift) {
		n := u.offset(uint64(part.Blocks))
		if err := store(ctx, u.Medium, p[:n], u.offset(part.LBA)); err != nil {
			return err
		}
		w.entry.advance(0, n)
		p = p[n:]
	}
	return nil
}

// fail makes a Failure of an error of a medium.
func (r *Request) fail(failed *sideError) *Failure {
	fault := r.explain(failed)
	return &Failure{Sense: sense.Data{Code: fault.code}}
}
