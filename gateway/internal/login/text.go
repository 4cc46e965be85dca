package login

import (
	"fmt"
	"strings"
)

// Limits of text, in both directions.
const (
	// MaxKeyLen is the longest key, in bytes, RFC 7143 section 6.1.
	MaxKeyLen = 63
	// MaxValueLen is the longest simple value, that is value or element of a list, in bytes; section 6.1. The binary
	// values of CHAP may be longer, see maxBinaryTextLen.
	MaxValueLen = 255
	// MaxTextLen bounds the text of one list of pairs, in bytes, over all PDUs that carry it.
	MaxTextLen = 8192
	// MaxTextKeys bounds the pairs of one list. Even if all are unknown keys of MaxKeyLen, the answer fits MaxTextLen.
	MaxTextKeys = 100
	// MaxTextParts bounds the PDUs that carry one list, empty ones included.
	MaxTextParts = 32
)

// Pair is one key=value.
type Pair struct{ Key, Value string }

// TextError says that a text breaks the rules of RFC 7143 section 6.1 or a limit.
type TextError struct{ Detail string }

func (e *TextError) Error() string { return "iSCSI text: " + e.Detail }

func textErrorf(format string, args ...any) *TextError {
	return &TextError{fmt.Sprintf(format, args...)}
}

// TextReader puts together a list of pairs that arrives in one or more PDUs. The zero value is ready.
type TextReader struct {
	part  []byte // owned; what came with the C bit so far
	parts int
}

// Add takes the data segment of one PDU; more is its C bit. It returns the pairs when the list is complete, and nil
// before. data is not kept. After an error the reader must not be used.
func (r *TextReader) Add(data []byte, more bool) ([]Pair, error) {
	r.parts++
	if r.parts > MaxTextParts {
		return nil, textErrorf("in more than %d PDUs", MaxTextParts)
	}
	if len(r.part)+len(data) > MaxTextLen {
		return nil, textErrorf("longer than %d bytes", MaxTextLen)
	}
	if more {
		r.part = append(r.part, data...)
		return nil, nil
	}
	whole := data
	if len(r.part) > 0 {
		whole = append(r.part, data...)
	}
	*r = TextReader{}
	return ParseText(whole)
}

// InProgress reports whether a list was begun and is not complete.
func (r *TextReader) InProgress() bool { return r.parts > 0 }

// ParseText parses a complete list of pairs. data is not kept. Empty strings between the pairs are skipped.
func ParseText(data []byte) ([]Pair, error) {
	if len(data) > MaxTextLen {
		return nil, textErrorf("longer than %d bytes", MaxTextLen)
	}
	pairs := []Pair{}
	for rest := string(data); rest != ""; {
		item, tail, ok := strings.Cut(rest, "\x00")
		if !ok {
			return nil, textErrorf("the last pair is not terminated")
		}
		rest = tail
		if item == "" {
			continue
		}
		if len(pairs) == MaxTextKeys {
			return nil, textErrorf("more than %d keys", MaxTextKeys)
		}
		key, value, ok := strings.Cut(item, "=")
		if !ok {
			return nil, textErrorf("a pair without '='")
		}
		if err := checkPair(key, value); err != nil {
			return nil, err
		}
		pairs = append(pairs, Pair{key, value})
	}
	return pairs, nil
}

func checkPair(key, value string) error {
	if key == "" || len(key) > MaxKeyLen {
		return textErrorf("a key of %d bytes", len(key))
	}
	for i := range len(key) {
		if !keyByte(key[i]) {
			return textErrorf("key %q", key)
		}
	}
	if key == keyCHAPC || key == keyCHAPR {
		if len(value) > maxBinaryTextLen {
			return textErrorf("%s of %d bytes", key, len(value))
		}
		return nil
	}
	for item := range strings.SplitSeq(value, ",") {
		if len(item) > MaxValueLen {
			return textErrorf("%s has a value of %d bytes", key, len(item))
		}
	}
	return nil
}

// keyByte reports whether c may be in a key: the standard-label of RFC 7143 section 6.1, and '#' and '/', which the
// public extension keys of RFC 3720 used.
func keyByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte(".-+@_#/", c) >= 0
}

func appendPair(dst []byte, key, value string) []byte {
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, 0)
}

// TextWriter holds the pairs of an answer and hands them out in pieces of a PDU's size.
type TextWriter struct {
	buf   []byte // owned until Next handed it out
	limit int
}

// NewTextWriter returns a writer that holds up to limit bytes.
func NewTextWriter(limit int) *TextWriter { return &TextWriter{limit: limit} }

// Add appends a pair, or returns a *TextError and appends nothing if the limit would be exceeded.
func (w *TextWriter) Add(key, value string) error {
	if len(w.buf)+len(key)+len(value)+2 > w.limit {
		return textErrorf("answer longer than %d bytes", w.limit)
	}
	w.buf = appendPair(w.buf, key, value)
	return nil
}

// mustAdd is Add where the caller has seen to the room.
func (w *TextWriter) mustAdd(key, value string) {
	if err := w.Add(key, value); err != nil {
		panic(err)
	}
}

// Len returns how many bytes wait to be sent.
func (w *TextWriter) Len() int { return len(w.buf) }

// Next returns the next at most size bytes, owned by the caller, and whether more follow, which is the C bit.
func (w *TextWriter) Next(size int) (data []byte, more bool) {
	if len(w.buf) <= size {
		data, w.buf = w.buf, nil
		return data, false
	}
	data, w.buf = w.buf[:size:size], w.buf[size:]
	return data, true
}
