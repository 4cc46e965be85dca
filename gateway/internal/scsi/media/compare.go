package media

import (
	"bytes"
	"context"
)

// Compare reads length bytes at off in pieces. expect is empty, or it is repeated and must be what is there: the offset from off of
// the first byte that is not is returned, else -1.
func Compare(ctx context.Context, b Backend, buffers *Buffers, off, length int64, expect []byte) (at int64, err error) {
	buf := buffers.take()
	defer buffers.give(buf)
	for done := int64(0); done < length; {
		p := (*buf)[:min(length-done, bufferSize)]
		if err := b.Read(ctx, p, off+done); err != nil {
			return -1, err
		}
		if at := mismatch(p, expect, done); at >= 0 {
			return done + int64(at), nil
		}
		done += int64(len(p))
	}
	return -1, nil
}

// mismatch returns the index of the first byte of p that differs from expect, which is repeated and of which p
// begins at offset start, or -1. An empty expect fits everything.
func mismatch(p, expect []byte, start int64) int {
	if len(expect) == 0 {
		return -1
	}
	for at := 0; at < len(p); {
		e := expect[(start+int64(at))%int64(len(expect)):]
		n := min(len(e), len(p)-at)
		if !bytes.Equal(p[at:at+n], e[:n]) {
			for p[at] == e[0] {
				at, e = at+1, e[1:]
			}
			return at
		}
		at += n
	}
	return -1
}
