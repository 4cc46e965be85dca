package election

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// release gives back the lease of the process that used the data directory before, whose end the memory vouches for. The
// lease is revoked only if the candidate's key that hangs on it bears that process's instance: what the note says about
// another etcd, another cluster or a lease that is long over names nothing. nil: there is nothing left to do.
func (e *Election) release(ctx context.Context, m Memory) error {
	note, ok := m.Former()
	if !ok || note.Prefix != e.o.Prefix || note.Instance == e.instance {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseMax)
	defer cancel()
	// The recipe's name of a candidate's key.
	r, err := e.o.Client.Get(ctx, fmt.Sprintf("%s/%x", e.o.Prefix, note.Lease))
	switch {
	case err != nil:
		return err
	case r.Header.GetClusterId() != note.Etcd || len(r.Kvs) != 1 || r.Kvs[0].Lease != note.Lease:
		return nil
	}
	var c Candidate
	if json.Unmarshal(r.Kvs[0].Value, &c) != nil || c.Instance != hex.EncodeToString(note.Instance[:]) {
		return nil
	}
	if _, err := e.o.Client.Revoke(ctx, clientv3.LeaseID(note.Lease)); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return err
	}
	e.o.Log.Info("gave back the lease of the process before, which was killed", zap.String("instance", c.Instance))
	return nil
}
