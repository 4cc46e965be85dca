package peernet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	raftv1 "github.com/ashlar-storage/ashlar/api/raft/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

const (
	// readTimeout bounds one ReadBlocks.
	readTimeout = 2 * time.Second
	// readMax is the most that one ReadBlocks returns, in bytes.
	readMax = 1 << 20
)

// check refuses a caller of another version or cluster, and everybody before Bind.
func (n *Net) check(version uint32, cluster []byte) (Host, error) {
	h := n.host.Load()
	switch {
	case version != Version:
		return nil, status.Errorf(codes.FailedPrecondition, "peernet: version %d, this is %d", version, Version)
	case !bytes.Equal(cluster, n.cfg.Cluster[:]):
		return nil, status.Errorf(codes.FailedPrecondition, "peernet: cluster %x, this is %x", cluster, n.cfg.Cluster)
	case h == nil:
		return nil, status.Error(codes.Unavailable, "peernet: not ready")
	}
	return *h, nil
}

// Streams returns how the streams of other chunkservers are served.
func (n *Net) Streams() map[stream.Purpose]stream.Service {
	check := func(h *stream.Hello) error {
		switch {
		case h.From == 0 || h.To == 0:
			return stream.Refuse(stream.BadChunkserver, "from chunkserver %d to %d", h.From, h.To)
		case n.host.Load() == nil:
			return stream.Refuse(stream.NotReady, "not ready")
		}
		return nil
	}
	return map[stream.Purpose]stream.Service{
		stream.RaftControl: {Max: controlMax, Check: check, Serve: n.serve},
		stream.RaftData:    {Max: payloadMax, Check: check, Serve: n.serve},
	}
}

// serve takes the batches of a stream.
func (n *Net) serve(ctx context.Context, conn *stream.Conn) {
	host, in := *n.host.Load(), &incoming{}
	_ = conn.Run(ctx, silence{}, func(b []byte) error { // the other end knows why
		defer in.reset() // nothing may point to b any more
		if err := in.parse(b); err != nil {
			return fmt.Errorf("peernet: %w", err)
		}
		host.Deliver(conn.From, in.messages)
		return nil
	}, nil)
}

// silence is what the server has to say on a stream of messages.
type silence struct{}

func (silence) Next() *stream.Frame { return nil }

// Service is the gRPC side of a Net.
type Service struct {
	raftv1.UnimplementedRaftServer
	n *Net
}

// Service returns what to register as raftv1.RaftServer.
func (n *Net) Service() *Service { return &Service{n: n} }

// Install takes an image and answers when it is in place.
func (s *Service) Install(stream grpc.ClientStreamingServer[raftv1.ImagePart, raftv1.InstallReply]) error {
	return s.n.install(stream)
}

// ReadBlocks reads blocks of the replica here.
func (s *Service) ReadBlocks(ctx context.Context, r *raftv1.ReadBlocksRequest) (*raftv1.ReadBlocksReply, error) {
	return s.n.readBlocks(ctx, r)
}

// install takes an image and answers when it is in place.
func (n *Net) install(stream grpc.ClientStreamingServer[raftv1.ImagePart, raftv1.InstallReply]) error {
	part, err := stream.Recv()
	if err != nil {
		return err
	}
	h, err := n.check(part.GetVersion(), part.GetCluster())
	if err != nil {
		return err
	}
	m := multiraft.Message{Copyset: layout.CopysetID(part.GetCopyset())}
	own := batchSpace()
	if m.Raft, err = own.decode(part.GetMessage()); err != nil {
		return status.Errorf(codes.InvalidArgument, "peernet: %v", err)
	}
	in, err := h.ReceiveImage(m)
	if err != nil {
		return status.Errorf(codes.FailedPrecondition, "peernet: %v", err)
	}
	handed := false
	defer func() { in.Close(handed) }()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := in.Write(part.GetData()); err != nil {
			return status.Errorf(codes.Aborted, "peernet: %v", err)
		}
	}
	handed = true
	if err := in.Finish(stream.Context()); err != nil {
		return status.Errorf(codes.Aborted, "peernet: %v", err)
	}
	return stream.SendAndClose(&raftv1.InstallReply{})
}

// readBlocks reads blocks of the replica here.
func (n *Net) readBlocks(ctx context.Context, r *raftv1.ReadBlocksRequest) (*raftv1.ReadBlocksReply, error) {
	h, err := n.check(r.GetVersion(), r.GetCluster())
	if err != nil {
		return nil, err
	}
	if r.GetOffset()%layout.BlockSize != 0 || r.GetLength()%layout.BlockSize != 0 || r.GetLength() == 0 || r.GetLength() > readMax {
		return nil, status.Errorf(codes.InvalidArgument, "peernet: %d bytes at %d", r.GetLength(), r.GetOffset())
	}
	g := h.Group(layout.CopysetID(r.GetCopyset()))
	if g == nil {
		return nil, status.Errorf(codes.NotFound, "peernet: no peer of copyset %d", r.GetCopyset())
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	ch := layout.ChunkID{Volume: layout.VolumeID(r.GetVolume()), Index: r.GetChunk()}
	var data []byte
	var crcs []uint32
	var applied uint64
	if n := r.GetContentVersion(); n != 0 {
		data, crcs, err = g.ReadVersion(n, ch, r.GetOffset(), r.GetLength())
	} else {
		data, crcs, applied, err = g.ReadBlocks(ctx, ch, r.GetOffset(), r.GetLength(), r.GetMinApplied())
	}
	switch {
	case errors.As(err, new(*blockstore.ChecksumError)):
		return nil, status.Errorf(codes.DataLoss, "peernet: %v", err)
	case err != nil:
		return nil, status.Errorf(codes.Unavailable, "peernet: %v", err)
	}
	return &raftv1.ReadBlocksReply{Data: data, Crcs: crcs, Applied: applied}, nil
}
