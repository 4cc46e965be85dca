package metastore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Batch is a set of changes that take effect together or not at all. The zero value is empty.
type Batch struct {
	ops []change
	err error
}

type change struct {
	key    string
	record []byte // nil: delete
}

// Put stores v, encoded by Encode, under key in table.
func (b *Batch) Put(table, key string, v any) {
	rec, err := Encode(v)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("metastore: %s/%s: %w", table, key, err)
	}
	b.ops = append(b.ops, change{table + "/" + key, rec})
}

// Delete removes the record under key in table; it is no error if there is none.
func (b *Batch) Delete(table, key string) { b.ops = append(b.ops, change{key: table + "/" + key}) }

// Len is the number of changes; at most BatchMax can be committed together.
func (b *Batch) Len() int { return len(b.ops) }

// Final tells whether err means that the Store is of no more use: its user must give up being active.
func Final(err error) bool { return errors.Is(err, ErrFenced) || errors.Is(err, ErrUnknown) }

// Commit writes a batch. It does not end with ctx once the transaction is on its way, because half a decision is worse
// than a late answer; Options.Timeout bounds it. On ErrFenced nothing was written; on ErrUnknown nobody knows.
func (s *Store) Commit(ctx context.Context, b *Batch) error {
	switch {
	case b.err != nil:
		return b.err
	case len(b.ops) == 0:
		return nil
	case len(b.ops) > BatchMax:
		return fmt.Errorf("metastore: a batch of %d changes, the limit is %d", len(b.ops), BatchMax)
	}
	select {
	case <-s.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	if s.dead != nil {
		return s.dead
	}
	err := s.commit(context.WithoutCancel(ctx), b)
	if Final(err) {
		s.dead = err
		if s.o.Dead != nil {
			s.o.Dead(err)
		}
	}
	return err
}

// commit repeats a transaction until its outcome is known or the time is over. The caller holds the turn.
func (s *Store) commit(ctx context.Context, b *Batch) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	then := s.thenOf(b)
	prev, next := strconv.FormatUint(s.txn, 10), strconv.FormatUint(s.txn+1, 10)
	sent := false
	var last error
	for range attemptsMax {
		if !s.o.Valid() {
			// Not ErrUnknown even if an attempt was sent before: the caller gives up being active in both cases.
			return ErrFenced
		}
		r, err := s.o.Client.Txn(ctx).
			If(s.fence(), clientv3.Compare(clientv3.Value(s.key(txnKey)), "=", prev)).
			Then(then...).
			Else(clientv3.OpGet(s.o.ElectionKey), clientv3.OpGet(s.key(txnKey))).Commit()
		switch {
		case err == nil && r.Succeeded:
			s.txn++
			return nil
		case err == nil && sent && s.elected(r) && value(r, 1) == next:
			s.txn++
			return nil
		case err == nil:
			return ErrFenced
		case refused(err):
			return fmt.Errorf("metastore: etcd refused the change: %w", err)
		}
		sent, last = true, err
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknown, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%w: %w", ErrUnknown, last)
}

// elected tells whether the Else branch of a transaction found the own election key unchanged.
func (s *Store) elected(r *clientv3.TxnResponse) bool {
	kvs := r.Responses[0].GetResponseRange().GetKvs()
	return len(kvs) == 1 && kvs[0].CreateRevision == s.o.Revision
}

func (s *Store) thenOf(b *Batch) []clientv3.Op {
	then := make([]clientv3.Op, 0, len(b.ops)+1)
	then = append(then, clientv3.OpPut(s.key(txnKey), strconv.FormatUint(s.txn+1, 10)))
	for _, c := range b.ops {
		if c.record == nil {
			then = append(then, clientv3.OpDelete(s.key(c.key)))
		} else {
			then = append(then, clientv3.OpPut(s.key(c.key), string(c.record)))
		}
	}
	return then
}
