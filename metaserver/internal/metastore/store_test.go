package metastore

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// etcd is one for all tests, started by the first: package testing still writes os.Stderr, which etcd reads, after
// TestMain has begun.
var (
	etcd  *embed.Etcd
	start = sync.OnceValue(startEtcd)
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	etcdDir = filepath.Join(dir, "data")
	defer func() {
		if etcd != nil {
			etcd.Close()
		}
	}()
	return m.Run()
}

var etcdDir string

// startEtcd returns the address of its clients.
func startEtcd() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	peer := url.URL{Scheme: "http", Host: l.Addr().String()}
	l.Close()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.UnsafeNoFsync, cfg.TickMs, cfg.ElectionMs = etcdDir, "fatal", true, 20, 200
	client := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	if etcd, err = embed.StartEtcd(cfg); err != nil {
		panic(err)
	}
	<-etcd.Server.ReadyNotify()
	return etcd.Clients[0].Addr().String()
}

func connect(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{start()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type record struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

// elect puts an election key and opens a store on its behalf; valid is what the clock says.
func elect(t *testing.T, c *clientv3.Client, prefix, key string, opts ...clientv3.OpOption) *Store {
	t.Helper()
	r, err := c.Put(t.Context(), prefix+"/election/"+key, key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{
		Client: c, Prefix: prefix, ElectionKey: prefix + "/election/" + key, Revision: r.Header.Revision,
		Valid: func() bool { return true }, Timeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(s *Store, key string, n int) error {
	var b Batch
	b.Put("things", key, record{key, n})
	return s.Commit(context.Background(), &b)
}

// read returns what is stored.
func read(t *testing.T, s *Store) map[string]int {
	t.Helper()
	out := map[string]int{}
	err := LoadAll(t.Context(), s, "things", func(key string, v *record) error {
		if v.Name != key {
			t.Errorf("under %q is the record of %q", key, v.Name)
		}
		out[key] = v.N
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCommitAndLoad(t *testing.T) {
	c := connect(t)
	s := elect(t, c, "/t/load", "a")
	const n = 2*pageRecords + 7
	for i := 0; i < n; {
		var b Batch
		for ; b.Len() < BatchMax && i < n; i++ {
			key := string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
			b.Put("things", key, record{key, i})
		}
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	var b Batch
	b.Delete("things", "aaa")
	b.Put("thingsandmore", "x", record{"x", 1}) // a table whose name begins with another's
	if err := s.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s); len(got) != n-1 {
		t.Errorf("%d records, want %d", len(got), n-1)
	}
	var big Batch
	for range BatchMax + 1 {
		big.Delete("things", "x")
	}
	if err := s.Commit(t.Context(), &big); err == nil {
		t.Error("a batch beyond the limit was taken")
	}
}

// TestFence lets a second one be elected in each of the ways in which that happens; the first one can not write then.
func TestFence(t *testing.T) {
	for _, lose := range []struct {
		name string
		f    func(*testing.T, *clientv3.Client, string, clientv3.LeaseID)
	}{
		{"key deleted", func(t *testing.T, c *clientv3.Client, key string, _ clientv3.LeaseID) {
			if _, err := c.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}},
		{"lease gone", func(t *testing.T, c *clientv3.Client, _ string, l clientv3.LeaseID) {
			if _, err := c.Revoke(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}},
		{"key made anew", func(t *testing.T, c *clientv3.Client, key string, _ clientv3.LeaseID) {
			if _, err := c.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Put(t.Context(), key, "a"); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(lose.name, func(t *testing.T) {
			c := connect(t)
			prefix := "/t/fence/" + lose.name
			lease, err := c.Grant(t.Context(), 60)
			if err != nil {
				t.Fatal(err)
			}
			old := elect(t, c, prefix, "a", clientv3.WithLease(lease.ID))
			var dead error
			old.o.Dead = func(err error) { dead = err }
			if err := put(old, "x", 1); err != nil {
				t.Fatal(err)
			}
			lose.f(t, c, prefix+"/election/a", lease.ID)
			// Nobody has written since, so that only the fence can refuse it.
			if err := put(old, "x", 3); !errors.Is(err, ErrFenced) || !errors.Is(dead, ErrFenced) {
				t.Errorf("the one that lost its key got %v, and was told %v", err, dead)
			}
			next := elect(t, c, prefix, "b")
			if got := read(t, next)["x"]; got != 1 {
				t.Errorf("x is %d, want 1", got)
			}
			if err := put(next, "x", 2); err != nil {
				t.Fatal(err)
			}
			if got := read(t, next)["x"]; got != 2 {
				t.Errorf("x is %d, want 2", got)
			}
		})
	}
}

// TestClock: a store whose time is over by the clock does not even ask.
func TestClock(t *testing.T) {
	c := connect(t)
	s := elect(t, c, "/t/clock", "a")
	s.o.Valid = func() bool { return false }
	if err := put(s, "x", 1); !errors.Is(err, ErrFenced) {
		t.Errorf("got %v", err)
	}
	s.o.Valid = func() bool { return true }
	if err := put(s, "x", 1); !errors.Is(err, ErrFenced) {
		t.Errorf("after its time was over once, got %v", err)
	}
}

// lossy is an etcd whose answers to transactions get lost: before doing anything, or after. What it has not done it keeps:
// the network may still deliver it.
type lossy struct {
	clientv3.KV
	before, after int
	held          []clientv3.Txn
}

type lossyTxn struct {
	clientv3.Txn
	l *lossy
}

var errLost = errors.New("the answer got lost")

func (l *lossy) Txn(ctx context.Context) clientv3.Txn {
	return &lossyTxn{l.KV.Txn(context.WithoutCancel(ctx)), l}
}

func (t *lossyTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *lossyTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }
func (t *lossyTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *lossyTxn) Commit() (*clientv3.TxnResponse, error) {
	if t.l.before > 0 {
		t.l.before--
		t.l.held = append(t.l.held, t.Txn)
		return nil, errLost
	}
	r, err := t.Txn.Commit()
	if t.l.after > 0 {
		t.l.after--
		return nil, errLost
	}
	return r, err
}

// TestLostAnswers: a transaction takes effect once, whether its request or its answer got lost.
func TestLostAnswers(t *testing.T) {
	c := connect(t)
	s := elect(t, c, "/t/lost", "a")
	l := &lossy{KV: c.KV}
	c.KV = l
	for i, lost := range []lossy{{before: 1}, {after: 1}, {before: 1, after: 2}, {before: 2, after: 1}} {
		l.before, l.after = lost.before, lost.after
		if err := put(s, "x", i); err != nil {
			t.Errorf("%+v: %v", lost, err)
		}
		if got := read(t, s)["x"]; got != i {
			t.Errorf("%+v: x is %d, want %d", lost, got, i)
		}
	}
	for _, late := range l.held {
		if r, err := late.Commit(); err != nil || r.Succeeded {
			t.Errorf("an attempt that was delivered late: %v, %v", r, err)
		}
	}
	if got := read(t, s)["x"]; got != 3 {
		t.Errorf("after late deliveries x is %d, want 3", got)
	}
	if s.txn != 4 {
		t.Errorf("transaction %d, want 4", s.txn)
	}
	// One of which nothing more is heard: nobody knows, and the store is of no more use.
	l.after = 1000
	if err := put(s, "x", 9); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v, want that nobody knows", err)
	}
	l.after = 0
	if err := put(s, "x", 10); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v, want that the store is of no more use", err)
	}
	next := elect(t, c, "/t/lost", "b")
	if got := read(t, next)["x"]; got != 9 {
		t.Errorf("the next one finds %d; the unheard transaction had taken effect as 9", got)
	}
}

func TestFormat(t *testing.T) {
	c := connect(t)
	elect(t, c, "/t/format", "a")
	if _, err := c.Put(t.Context(), "/t/format/format", "2"); err != nil {
		t.Fatal(err)
	}
	r, err := c.Get(t.Context(), "/t/format/election/a")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Options{
		Client: c, Prefix: "/t/format", ElectionKey: "/t/format/election/a", Revision: r.Kvs[0].CreateRevision, Valid: func() bool { return true },
	})
	var format *FormatError
	if !errors.As(err, &format) || format.Found != "2" {
		t.Errorf("got %v", err)
	}
}

func TestRecord(t *testing.T) {
	b, err := Encode(record{"x", 7})
	if err != nil {
		t.Fatal(err)
	}
	var v record
	if err := Decode(b, &v); err != nil || v != (record{"x", 7}) {
		t.Errorf("%v, %v", v, err)
	}
	for n := range b {
		if err := Decode(b[:n], new(record)); err == nil {
			t.Errorf("a record cut at %d was taken", n)
		}
	}
	b[0] = 2
	if err := Decode(b, &v); !errors.Is(err, ErrEncoding) {
		t.Errorf("another encoding: %v", err)
	}
	if err := Decode([]byte("\x01{\"name\":\"y\",\"later\":1}"), &v); err != nil || v.Name != "y" {
		t.Errorf("a field of a later version: %v, %v", v, err)
	}
}
