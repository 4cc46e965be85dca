package stream

import (
	"context"
	"fmt"
	"net"
	"time"
)

const (
	// dialMax bounds the time until a connection stands, and answerMax the time until its hello is answered.
	dialMax   = time.Second
	answerMax = 2 * time.Second
)

// Dial begins a stream with the server at address, HOST:PORT, and accepts payloads of at most limit bytes. The error is a
// *RefusedError when the server does not want the stream.
func Dial(ctx context.Context, address string, h Hello, limit int) (*Conn, error) {
	h.lowest, h.highest = VersionMin, VersionMax
	d := net.Dialer{Timeout: dialMax}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	c, err := greet(ctx, nc.(*net.TCPConn), &h, limit)
	if err != nil {
		_ = nc.Close() // nothing is lost with it
	}
	return c, err
}

// greet sends the hello and waits for the answer.
func greet(ctx context.Context, nc *net.TCPConn, h *Hello, limit int) (*Conn, error) {
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	_ = nc.SetDeadline(time.Now().Add(answerMax)) // what fails here fails below too
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, err := nc.Write(h.append(nil)); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	b, err := readSealed(nc, nil)
	if err != nil {
		return nil, fmt.Errorf("stream: no answer to the hello: %w", err)
	}
	var a answer
	if err := a.parse(b); err != nil {
		return nil, err
	}
	if err := a.err(); err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Time{})
	return newConn(nc, limit)
}
