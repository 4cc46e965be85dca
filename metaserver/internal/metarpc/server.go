package metarpc

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/metaserver/internal/election"
	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/metaserver/internal/namespace"
	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
)

// The metadata of each call; storage/metaclient sends it.
const (
	protocolKey = "ashlar-protocol"
	requestKey  = "ashlar-request"
	// protocol is the version that is served. A later version of the caller that still speaks this one sends this number.
	protocol = "1"
	// requestMax bounds the request's name in bytes.
	requestMax = 64
)

// Term is the state of one time of being active.
type Term struct {
	Topology  *topology.Topology
	Namespace *namespace.Namespace
	Exports   *Exports
	// Valid tells whether the lease can not have expired.
	Valid func() bool
	// End ends the term.
	End func()
	// Began is when it began, for people to read.
	Began time.Time
}

// Options say how a Server serves.
type Options struct {
	Log *zap.Logger
	// Version is the metaserver's own.
	Version string
	// Address is the metaserver's own, as others know it.
	Address string
	// Candidates returns the metaservers that take part in the election, the active one first.
	Candidates func() []election.Candidate
	// StartGrace: a metaserver that has been active for less can not tell who is down.
	StartGrace time.Duration
}

// Server serves both services.
type Server struct {
	o Options

	mu struct {
		sync.Mutex
		term *running
	}
}

// running is a term with the calls that are under way in it.
type running struct {
	*Term
	ctx    context.Context
	cancel context.CancelFunc
	calls  sync.WaitGroup

	sessions sessions
	resets   *resets
}

// termKey is the context key of the term that a call runs in.
type termKey struct{}

// New makes a server that refuses every call until Begin.
func New(o Options) *Server { return &Server{o: o} }

// Register adds the services to a gRPC server that was made with Unary and Stream.
func (s *Server) Register(g *grpc.Server) {
	metav1.RegisterAdminServer(g, &admin{s: s})
	metav1.RegisterNodeServer(g, &node{s: s})
}

// Begin lets calls in.
func (s *Server) Begin(t *Term) {
	ctx, cancel := context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.term = &running{Term: t, ctx: ctx, cancel: cancel, resets: newResets()}
}

// End refuses calls from now on, ends those under way and waits for them.
func (s *Server) End() {
	s.mu.Lock()
	t := s.mu.term
	s.mu.term = nil
	s.mu.Unlock()
	if t != nil {
		t.cancel()
		t.calls.Wait()
	}
}

// Active tells whether calls are answered.
func (s *Server) Active() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.term != nil && s.mu.term.Valid()
}

// enter counts a call in, nil when there is no term.
func (s *Server) enter() *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.term == nil || !s.mu.term.Valid() {
		return nil
	}
	s.mu.term.calls.Add(1)
	return s.mu.term
}

// Unary is the interceptor of calls.
func (s *Server) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := checkProtocol(ctx); err != nil {
		return nil, err
	}
	t := s.enter()
	if t == nil {
		return nil, s.notActive()
	}
	defer t.calls.Done()
	ctx, cancel := context.WithCancel(context.WithValue(ctx, termKey{}, t))
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	r, err := next(ctx, req)
	if err != nil {
		return nil, s.answer(t, info.FullMethod, err)
	}
	if !t.Valid() {
		// What was read may be old by now. A change that was made stays; the caller repeats it and finds it done.
		return nil, s.notActive()
	}
	return r, nil
}

// Stream is the interceptor of streams.
func (s *Server) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := checkProtocol(stream.Context()); err != nil {
		return err
	}
	t := s.enter()
	if t == nil {
		return s.notActive()
	}
	defer t.calls.Done()
	ctx, cancel := context.WithCancel(context.WithValue(stream.Context(), termKey{}, t))
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	err := next(srv, &termStream{ServerStream: stream, ctx: ctx})
	if t.ctx.Err() != nil {
		return s.notActive()
	}
	if err != nil {
		return s.answer(t, info.FullMethod, err)
	}
	return nil
}

// termStream is a stream whose context ends with the term.
type termStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (t *termStream) Context() context.Context { return t.ctx }

// termOf returns the term that a call runs in; the interceptors put it there.
func termOf(ctx context.Context) *running { return ctx.Value(termKey{}).(*running) }

// checkProtocol refuses callers of another version.
func checkProtocol(ctx context.Context) error {
	v := metadata.ValueFromIncomingContext(ctx, protocolKey)
	switch {
	case len(v) == 0:
		return status.Errorf(codes.FailedPrecondition, "the call does not carry the metadata %q: send %q", protocolKey, protocol)
	case v[0] != protocol:
		return status.Errorf(codes.FailedPrecondition, "the caller speaks protocol %.20q, this metaserver %q: run versions that fit", v[0], protocol)
	}
	return nil
}

// requestOf returns the name of the call, empty when it has none.
func requestOf(ctx context.Context) string {
	v := metadata.ValueFromIncomingContext(ctx, requestKey)
	if len(v) == 0 || len(v[0]) > requestMax {
		return ""
	}
	return v[0]
}

// notActive is the answer of a standby.
func (s *Server) notActive() error {
	active := ""
	if c := s.o.Candidates(); len(c) > 0 && c[0].Address != s.o.Address {
		active = c[0].Address
	}
	text := "this metaserver is not active, and none is known to be"
	if active != "" {
		text = "this metaserver is not active, ask " + active
	}
	st, err := status.New(codes.FailedPrecondition, text).WithDetails(&metav1.NotActive{Active: active})
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return st.Err()
}

// answer turns an error into what is sent.
func (s *Server) answer(t *running, method string, err error) error {
	var r *refuse.Error
	var stale *topology.StaleError
	switch {
	case errors.As(err, &r):
		return status.Error(kindCode(r.Kind), r.Text)
	case errors.As(err, &stale):
		s.o.Log.Warn("another metaserver was elected after this one", zap.Error(err))
		t.End()
		return s.notActive()
	case errors.Is(err, metastore.ErrFenced):
		return s.notActive()
	case errors.Is(err, metastore.ErrUnknown):
		return status.Error(codes.Unavailable, "etcd did not answer in time; whether the change was made is not known yet")
	case t.ctx.Err() != nil:
		return s.notActive()
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	s.o.Log.Error("a call failed", zap.String("method", method), zap.Error(err))
	return status.Error(codes.Internal, err.Error())
}

func kindCode(k refuse.Kind) codes.Code {
	switch k {
	case refuse.Invalid:
		return codes.InvalidArgument
	case refuse.NotFound:
		return codes.NotFound
	case refuse.Exists:
		return codes.AlreadyExists
	case refuse.State:
		return codes.FailedPrecondition
	case refuse.Foreign:
		return codes.PermissionDenied
	case refuse.Exhausted:
		return codes.ResourceExhausted
	}
	return codes.Internal
}
