package metaclient

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// follower is a grpc.ClientConnInterface that sends each call to the active metaserver.
type follower struct {
	c *Client
	// timeout bounds a call without a deadline; 0: it is not bounded.
	timeout time.Duration
	// settle: a repeated removal that finds nothing was done by the attempt before it.
	settle bool
}

// Invoke sends one call until it is answered or ctx ends.
func (f *follower) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if _, bounded := ctx.Deadline(); !bounded && f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	bare := ctx
	ctx = outgoing(ctx, newRequestID())
	begin := time.Now()
	pause, hops, doubt := pauseMin, 0, false
	for {
		addr, err := f.attempt(ctx, method, args, reply, opts)
		code := status.Code(err)
		switch {
		case err == nil:
			return nil
		case f.settle && doubt && code == codes.NotFound:
			return f.settled(bare, args, reply, err)
		case !repeatable(ctx, err):
			return err
		case ctx.Err() != nil:
			return expired(ctx, addr, time.Since(begin), err)
		}
		doubt = doubt || code == codes.Unavailable || code == codes.DeadlineExceeded
		if f.c.redirect(addr, err) && hops < hopsMax {
			hops++
			continue
		}
		hops = 0
		if sleep(ctx, pause) != nil {
			return expired(ctx, addr, time.Since(begin), err)
		}
		pause = min(2*pause, pauseMax)
	}
}

// attempt sends a call once and returns the address that it went to.
func (f *follower) attempt(ctx context.Context, method string, args, reply any, opts []grpc.CallOption) (string, error) {
	addr, conn, err := f.c.conn()
	if err != nil {
		return addr, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.c.attempt)
	defer cancel()
	if m, ok := reply.(proto.Message); ok {
		proto.Reset(m)
	}
	return addr, conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream to the metaserver that is believed active; it is not repeated.
func (f *follower) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	addr, conn, err := f.c.conn()
	if err != nil {
		return nil, err
	}
	s, err := conn.NewStream(outgoing(ctx, newRequestID()), desc, method, opts...)
	if err != nil {
		f.c.redirect(addr, err)
	}
	return s, err
}

// settled gives the answer of a removal that an earlier attempt of the same call made, though its answer was lost.
func (f *follower) settled(ctx context.Context, args, reply any, found error) error {
	var iqn string
	switch r := args.(type) {
	case *metav1.DeleteVolumeRequest, *metav1.DeleteTargetRequest:
		return nil
	case *metav1.UnmapLUNRequest:
		iqn = r.GetIqn()
	case *metav1.DenyInitiatorRequest:
		iqn = r.GetIqn()
	default:
		return found
	}
	return f.Invoke(ctx, metav1.Admin_ShowTarget_FullMethodName, &metav1.ShowTargetRequest{Iqn: iqn}, reply)
}

// repeatable tells whether another metaserver, or the same one later, may answer what err refused.
func repeatable(ctx context.Context, err error) bool {
	switch status.Code(err) {
	case codes.Unavailable:
		return true
	case codes.DeadlineExceeded, codes.Canceled:
		// The attempt's own time, or the call's: the caller looks at ctx.
		return !errors.Is(err, errClosed)
	case codes.FailedPrecondition:
		_, ok := notActive(err)
		return ok
	}
	return false
}

// notActive returns the detail with which a standby refuses.
func notActive(err error) (*metav1.NotActive, bool) {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.FailedPrecondition {
		return nil, false
	}
	for _, d := range s.Details() {
		if n, ok := d.(*metav1.NotActive); ok {
			return n, true
		}
	}
	return nil, false
}

// activeOf returns the address that err names as the active metaserver, empty when it names none.
func activeOf(err error) string {
	n, _ := notActive(err)
	return n.GetActive()
}

// expired is the error of a call whose time ended before a metaserver answered it; last is why the last attempt failed.
func expired(ctx context.Context, addr string, after time.Duration, last error) error {
	code := codes.DeadlineExceeded
	if ctx.Err() == context.Canceled {
		code = codes.Canceled
	}
	reason := status.Convert(last).Message()
	if n, ok := notActive(last); ok {
		reason = "it is a standby and knows of no active metaserver (is etcd reachable?)"
		if n.GetActive() != "" {
			reason = fmt.Sprintf("it is a standby, and the active metaserver %s does not answer", n.GetActive())
		}
	}
	return status.Error(code, fmt.Sprintf("no metaserver answered within %v; %s was asked last: %s",
		after.Round(10*time.Millisecond), addr, reason))
}

// outgoing adds the metadata of every call.
func outgoing(ctx context.Context, request string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, ProtocolKey, Protocol, RequestKey, request)
}

// newRequestID names a call.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails: it ends the process instead
	return hex.EncodeToString(b[:])
}

// sleep waits for about d, between a half and the whole of it, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + mrand.N(d/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
