package metastore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/clientv3util"
)

// Format is the version of the records that this package reads and writes.
const Format = 1

// Limits.
const (
	// BatchMax is how many changes one batch holds; etcd refuses transactions of more than 128 operations.
	BatchMax = 100
	// pageRecords is how many records Load asks for at once.
	pageRecords = 500
	// attemptsMax bounds the attempts of one Commit.
	attemptsMax = 8
)

// Names below the prefix.
const (
	formatKey = "format"
	txnKey    = "txn"
)

// ErrFenced is returned when another metaserver was elected, or this one's time as the active one is over: nothing was
// written, and nothing can be written through this Store any more.
var ErrFenced = errors.New("metastore: no longer the active metaserver")

// ErrUnknown is returned when it could not be found out whether a batch took effect. The Store is of no more use: the
// caller must give up being active and load everything anew once it is elected again.
var ErrUnknown = errors.New("metastore: etcd did not say whether the change took effect")

// FormatError says that the records were written by a newer version.
type FormatError struct {
	// Found is the version in etcd.
	Found string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("metastore: the records in etcd have format %q and this version reads format %d: run a newer version",
		e.Found, Format)
}

// Options say where a Store writes and on whose behalf.
type Options struct {
	// Client is borrowed, not closed.
	Client *clientv3.Client
	// Prefix is put before every key, without a trailing slash.
	Prefix string
	// ElectionKey and Revision are the fence: the own key in the election and its CreateRevision.
	ElectionKey string
	Revision    int64
	// Valid says, by the monotonic clock, whether the own lease can not have expired; it is asked before every write.
	Valid func() bool
	// Dead is called once, when ErrFenced or ErrUnknown is returned for the first time; it must not block. It may be nil.
	Dead func(error)
	// Timeout bounds one Commit or one page of Load; 0: 5 s.
	Timeout time.Duration
}

// Store writes on behalf of one term as the active metaserver. Commits run one at a time; a Store is safe for use by
// several goroutines.
type Store struct {
	o Options
	// turn holds one token: its holder is the one whose transaction is under way, and owns txn and dead.
	turn chan struct{}
	txn  uint64
	dead error
}

// Open begins a term: it checks the format of what is stored (and writes the format if there is nothing yet) and takes
// up the numbering of transactions.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	s := &Store{o: o, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	// Both keys are made if they are missing; the fence of the read is that of a write.
	format, txn := s.key(formatKey), s.key(txnKey)
	_, err := s.o.Client.Txn(ctx).If(s.fence(), clientv3util.KeyMissing(format)).
		Then(clientv3.OpPut(format, strconv.Itoa(Format)), clientv3.OpPut(txn, "0")).Commit()
	if err != nil {
		return nil, fmt.Errorf("metastore: writing the format: %w", err)
	}
	r, err := s.o.Client.Txn(ctx).If(s.fence()).Then(clientv3.OpGet(format), clientv3.OpGet(txn)).Commit()
	switch {
	case err != nil:
		return nil, fmt.Errorf("metastore: reading the format: %w", err)
	case !r.Succeeded:
		return nil, ErrFenced
	}
	found := value(r, 0)
	if v, err := strconv.Atoi(found); err != nil || v > Format || v < 1 {
		return nil, &FormatError{Found: found}
	}
	if s.txn, err = strconv.ParseUint(value(r, 1), 10, 64); err != nil {
		return nil, fmt.Errorf("metastore: the transaction number %q is damaged: %w", value(r, 1), err)
	}
	return s, nil
}

// Revision returns the fence: the CreateRevision of the own election key. It rises with each election.
func (s *Store) Revision() int64 { return s.o.Revision }

// Load calls f for every record of a table in the order of its keys, which are given without the table's name. It reads
// in pages of one revision; value is f's to keep.
func (s *Store) Load(ctx context.Context, table string, f func(key string, value []byte) error) error {
	prefix := s.key(table) + "/"
	end := clientv3.GetPrefixRangeEnd(prefix)
	from, revision := prefix, int64(0)
	for {
		page, err := s.page(ctx, from, end, revision)
		if err != nil {
			return fmt.Errorf("metastore: loading %s: %w", table, err)
		}
		revision = page.Header.Revision
		for _, kv := range page.Kvs {
			if err := f(strings.TrimPrefix(string(kv.Key), prefix), kv.Value); err != nil {
				return fmt.Errorf("metastore: record %s: %w", kv.Key, err)
			}
		}
		if !page.More {
			return nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// page reads the next records of a range.
func (s *Store) page(ctx context.Context, from, end string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	opts := []clientv3.OpOption{
		clientv3.WithRange(end), clientv3.WithLimit(pageRecords),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend),
	}
	if revision > 0 {
		opts = append(opts, clientv3.WithRev(revision))
	}
	return s.o.Client.Get(ctx, from, opts...)
}

func (s *Store) key(name string) string { return s.o.Prefix + "/" + name }

func (s *Store) fence() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(s.o.ElectionKey), "=", s.o.Revision)
}

// value returns the value that the i-th operation of a transaction read, empty when there is none.
func value(r *clientv3.TxnResponse, i int) string {
	if i >= len(r.Responses) {
		return ""
	}
	kvs := r.Responses[i].GetResponseRange().GetKvs()
	if len(kvs) == 0 {
		return ""
	}
	return string(kvs[0].Value)
}
