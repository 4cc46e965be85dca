package image

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/ashlar-storage/ashlar/storage/blockstore/internal/frame"
)

type stage uint8

// The stages of a stream.
const (
	stageHeader stage = iota
	stageState
	stageVersions
	stageBlocks
	stageDone
)

// Next returns the next frame of the image's stream in buf's space, which grows to at most frame.Max bytes; io.EOF
// after the last. An error, *extent.ChecksumError included, ends the stream; the receiver then aborts. Next and NextRun are
// not used on the same image.
func (r *Reader) Next(buf []byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	buf = buf[:0]
	switch r.stage {
	case stageHeader:
		r.stage = stageState
		return frame.AppendHeader(buf, r.src.Copyset, r.src.Index, r.src.Term, len(r.src.State), len(r.src.Versions) == 0), nil
	case stageState:
		if rest := r.src.State[r.stated:]; len(rest) > 0 {
			n := min(len(rest), frame.PayloadMax)
			r.stated += n
			return frame.End(append(frame.Begin(buf, frame.KindState), rest[:n]...), 0), nil
		}
		r.stage = stageVersions
		fallthrough
	case stageVersions:
		for v, n := range r.src.Versions {
			delete(r.src.Versions, v)
			return frame.AppendVersions(buf, v, n), nil
		}
		r.stage = stageBlocks
		fallthrough
	case stageBlocks:
		b, err := r.nextBlocksLocked(buf)
		if err == nil {
			return b, nil
		}
		r.stage = stageDone
		if errors.Is(err, io.EOF) {
			return frame.End(binary.LittleEndian.AppendUint64(frame.Begin(buf, frame.KindEnd), r.blocks), 0), nil
		}
		return nil, err
	case stageDone:
	}
	return nil, io.EOF
}

// nextBlocksLocked returns the next frame of a leaf.
func (r *Reader) nextBlocksLocked(buf []byte) ([]byte, error) {
	if r.closed {
		return nil, ErrClosed
	}
	for r.todo == 0 {
		if err := r.nextLeafLocked(); err != nil {
			return nil, err
		}
		r.todo = r.cur.Own()
		if r.curID.Version != 0 || r.cur.Born != 0 || r.cur.Shared != 0 {
			return frame.AppendLeaf(buf, r.curID, r.cur), nil
		}
	}
	run, err := r.readNextLocked()
	if err != nil {
		return nil, err
	}
	r.blocks += uint64(len(run.CRCs))
	return frame.AppendBlocks(buf, run), nil
}

// WriteTo writes the stream, frame by frame.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	var buf []byte
	for {
		f, err := r.Next(buf)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(f)
		total += int64(n)
		if err != nil {
			return total, err
		}
		buf = f
	}
}
