package frame

// Cutter cuts a stream that comes in pieces into its frames.
type Cutter struct {
	// buf holds the part of a frame that came in.
	buf []byte
}

// Inside reports whether a frame has begun and not ended.
func (c *Cutter) Inside() bool { return len(c.buf) > 0 }

// Write takes the next bytes of the stream and gives each frame that they complete to handle, whose error ends it.
func (c *Cutter) Write(p []byte, handle func(b []byte) error) error {
	for len(p) > 0 {
		var err error
		if p, err = c.take(p, handle); err != nil {
			return err
		}
	}
	return nil
}

// take handles a frame that p completes, or keeps what there is of it. It returns the rest.
func (c *Cutter) take(p []byte, handle func(b []byte) error) ([]byte, error) {
	whole := p
	if len(c.buf) > 0 || len(p) < Header {
		n := min(len(p), max(0, Header-len(c.buf)))
		c.buf, p = append(c.buf, p[:n]...), p[n:]
		whole = c.buf
		if len(whole) < Header {
			return p, nil
		}
	}
	n, err := Len(whole)
	if err != nil {
		return nil, err
	}
	if len(c.buf) > 0 {
		k := min(len(p), n-len(c.buf))
		c.buf, p = append(c.buf, p[:k]...), p[k:]
		if len(c.buf) < n {
			return p, nil
		}
		err := handle(c.buf)
		c.buf = c.buf[:0]
		return p, err
	}
	if len(p) < n {
		c.buf = append(c.buf, p...)
		return nil, nil
	}
	return p[n:], handle(p[:n])
}
