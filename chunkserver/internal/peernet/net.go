package peernet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	raftv1 "github.com/ashlar-storage/ashlar/api/raft/v1"
	"github.com/ashlar-storage/ashlar/chunkserver/internal/multiraft"
	"github.com/ashlar-storage/ashlar/storage/blockstore"
	"github.com/ashlar-storage/ashlar/storage/layout"
	"github.com/ashlar-storage/ashlar/storage/stream"
)

// Version is the version of api/raft/v1 that is spoken.
const Version = 1

// Limits.
const (
	// MessageMax bounds one gRPC message, in bytes.
	MessageMax = 64 << 20
	// payloadMax bounds a batch, in bytes: one message with the largest entry, or several small ones; controlMax one of
	// messages without entries.
	payloadMax = 64 << 20
	controlMax = 4 << 20
	// batchBytes bounds a batch of several raft messages: more begin the next one.
	batchBytes = 64<<10 - 512
	// queueMessages and queueBytes bound what waits for one stream.
	queueMessages = 64 << 10
	queueBytes    = 64 << 20
	// window is the flow-control window of streams and connections, in bytes.
	window = 32 << 20
	// bufferSize is that of each connection's read and write buffers, in bytes.
	bufferSize = 128 << 10
	// redialMin and redialMax bound the pause before a broken stream is made anew.
	redialMin, redialMax = 10 * time.Millisecond, 250 * time.Millisecond
	// chunkserversMax bounds the address list.
	chunkserversMax = 4096
)

// Host is whom the messages are for.
type Host interface {
	Deliver(from layout.ChunkserverID, msgs []multiraft.Message)
	Unreachable(cs layout.ChunkserverID)
	ReceiveImage(m multiraft.Message) (*multiraft.Incoming, error)
	Group(id layout.CopysetID) *multiraft.Group
}

// Config configures a Net.
type Config struct {
	// Cluster and Self say who speaks. Required.
	Cluster [16]byte
	Self    layout.ChunkserverID
	// Logger may be nil.
	Logger *zap.Logger
}

// Net is the way to the other chunkservers and, by its Streams and its Service, from them. It implements multiraft.Transport.
type Net struct {
	cfg  Config
	log  *zap.Logger
	host atomic.Pointer[Host]

	ctx    context.Context // ends with Close; what the links' goroutines live by
	cancel context.CancelFunc
	wg     sync.WaitGroup
	peers  atomic.Pointer[map[layout.ChunkserverID]*peer]
	mu     sync.Mutex // changes of peers
}

// peer is the three connections to one chunkserver.
type peer struct {
	address       string
	control, data *link
	bulk          *grpc.ClientConn
}

// New returns a Net that drops everything until Bind and SetAddresses. Close ends it.
func New(cfg Config) *Net {
	n := &Net{cfg: cfg, log: cfg.Logger}
	if n.log == nil {
		n.log = zap.NewNop()
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.peers.Store(&map[layout.ChunkserverID]*peer{})
	return n
}

// Bind says whom incoming messages are for.
func (n *Net) Bind(h Host) { n.host.Store(&h) }

// SetAddresses says where the chunkservers are, HOST:PORT each. What is not in it keeps its address.
func (n *Net) SetAddresses(addresses map[layout.ChunkserverID]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return
	}
	old := *n.peers.Load()
	var next map[layout.ChunkserverID]*peer
	for id, address := range addresses {
		have := old[id]
		if id == n.cfg.Self || address == "" || have != nil && have.address == address || have == nil && len(old) >= chunkserversMax {
			continue
		}
		p, err := n.dial(id, address)
		if err != nil {
			n.log.Warn("chunkserver's address is not usable", zap.Uint64("chunkserver", uint64(id)), zap.Error(err))
			continue
		}
		if next == nil {
			next = maps.Clone(old)
		}
		if have != nil {
			have.close()
		}
		next[id] = p
	}
	if next != nil {
		n.peers.Store(&next)
	}
}

// Close ends all connections and waits for their goroutines. The servers that serve n are stopped before.
func (n *Net) Close() {
	n.cancel()
	n.mu.Lock()
	peers := *n.peers.Load()
	n.mu.Unlock()
	for _, p := range peers {
		p.close()
	}
	n.wg.Wait()
}

func (n *Net) dial(id layout.ChunkserverID, address string) (*peer, error) {
	bulk, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithWriteBufferSize(bufferSize), grpc.WithReadBufferSize(bufferSize),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MessageMax), grpc.MaxCallSendMsgSize(MessageMax)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialMin, Multiplier: 2, Jitter: 0.2, MaxDelay: redialMax},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 4 * time.Second, PermitWithoutStream: true}),
	)
	if err != nil {
		return nil, err
	}
	return &peer{
		address: address, bulk: bulk,
		control: newLink(n, id, address, stream.RaftControl), data: newLink(n, id, address, stream.RaftData),
	}, nil
}

func (p *peer) close() {
	p.control.cancel()
	p.data.cancel()
	_ = p.bulk.Close() // nothing is lost with it
}

// Send queues messages; see multiraft.Transport.
func (n *Net) Send(to layout.ChunkserverID, msgs []multiraft.Message) {
	p := (*n.peers.Load())[to]
	if p == nil {
		return
	}
	var control, data int
	for i := range msgs {
		if bulky(&msgs[i]) {
			data++
		} else {
			control++
		}
	}
	if control > 0 {
		p.control.push(msgs, false)
	}
	if data > 0 {
		p.data.push(msgs, true)
	}
}

// bulky tells what goes over the data connection: entries, and the last message of a leader that lets its successor campaign, which
// would lose if it overtook entries that others have got by then.
func bulky(m *multiraft.Message) bool {
	t := m.Raft.GetType()
	return t == raftpb.MsgApp && len(m.Raft.GetEntries()) > 0 || t == raftpb.MsgTimeoutNow
}

// Install sends an image; see multiraft.Transport.
func (n *Net) Install(ctx context.Context, to layout.ChunkserverID, m multiraft.Message, im *blockstore.Image, sent *atomic.Int64) error {
	p := (*n.peers.Load())[to]
	if p == nil {
		return fmt.Errorf("peernet: no address of chunkserver %d", to)
	}
	raw, err := proto.Marshal(m.Raft)
	if err != nil {
		return fmt.Errorf("peernet: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := raftv1.NewRaftClient(p.bulk).Install(ctx)
	if err != nil {
		return fmt.Errorf("peernet: %w", err)
	}
	part := &raftv1.ImagePart{
		Version: Version, Cluster: n.cfg.Cluster[:], Copyset: uint64(m.Copyset),
		FromPeer: m.Raft.GetFrom(), ToPeer: m.Raft.GetTo(), Message: raw,
	}
	var buf []byte
	for {
		if err := stream.Send(part); err != nil {
			break // the reply says why
		}
		buf, err = im.Next(buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("peernet: %w", err)
		}
		sent.Add(int64(len(buf)))
		part = &raftv1.ImagePart{Version: Version, Data: buf}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return fmt.Errorf("peernet: %w", err)
	}
	return nil
}

// ReadBlocks reads blocks of another peer's replica; see multiraft.Transport.
func (n *Net) ReadBlocks(ctx context.Context, to layout.ChunkserverID, id layout.CopysetID, ch layout.ChunkID, off, length uint32, applied uint64) ([]byte, uint64, error) {
	return n.ask(ctx, to, &raftv1.ReadBlocksRequest{
		Copyset: uint64(id), Volume: uint64(ch.Volume), Chunk: ch.Index, Offset: off, Length: length, MinApplied: applied,
	})
}

// ReadVersion reads blocks of a version of a volume of another peer's replica. One of an earlier release gives those of now.
func (n *Net) ReadVersion(ctx context.Context, to layout.ChunkserverID, id layout.CopysetID, version uint64, ch layout.ChunkID, off, length uint32) ([]byte, error) {
	data, _, err := n.ask(ctx, to, &raftv1.ReadBlocksRequest{
		Copyset: uint64(id), Volume: uint64(ch.Volume), Chunk: ch.Index, Offset: off, Length: length, ContentVersion: version,
	})
	return data, err
}

// ask asks another chunkserver for blocks, and returns them with the index behind which no entry is in them.
func (n *Net) ask(ctx context.Context, to layout.ChunkserverID, q *raftv1.ReadBlocksRequest) ([]byte, uint64, error) {
	p := (*n.peers.Load())[to]
	if p == nil {
		return nil, 0, fmt.Errorf("peernet: no address of chunkserver %d", to)
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	q.Version, q.Cluster = Version, n.cfg.Cluster[:]
	r, err := raftv1.NewRaftClient(p.bulk).ReadBlocks(ctx, q)
	if err != nil {
		return nil, 0, fmt.Errorf("peernet: %w", err)
	}
	if len(r.GetData()) != int(q.GetLength()) {
		return nil, 0, fmt.Errorf("peernet: asked for %d bytes, got %d", q.GetLength(), len(r.GetData()))
	}
	if bad := layout.VerifyBlocks(r.GetData(), r.GetCrcs()); bad >= 0 {
		return nil, 0, fmt.Errorf("peernet: block %d of the answer does not match its CRC32C", bad)
	}
	return r.GetData(), r.GetApplied(), nil
}
