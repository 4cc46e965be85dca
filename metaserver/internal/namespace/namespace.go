package namespace

import (
	"context"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ashlar-storage/ashlar/metaserver/internal/metastore"
	"github.com/ashlar-storage/ashlar/metaserver/internal/topology"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Tables of the store.
const (
	idsTable        = "ids"
	volumeTable     = "volume"
	targetTable     = "target"
	initiatorTable  = "initiator"
	attachmentTable = "attachment"

	reservationTable = "reservation"
)

// Raiser tells copysets that access to a volume was taken away. Both calls are idempotent and return when a quorum of
// the copyset has it on stable storage, or with an error when ctx ends before that.
type Raiser interface {
	// RaiseAccess raises the volume's access generation in a copyset to at least gen.
	RaiseAccess(ctx context.Context, copyset layout.CopysetID, volume layout.VolumeID, gen layout.AccessGeneration) error
	// DeleteVolume raises it to layout.DeletedAccess and gives the volume's blocks in the copyset back.
	DeleteVolume(ctx context.Context, copyset layout.CopysetID, volume layout.VolumeID) error
}

// Space says where new volumes can go.
type Space interface {
	// Rooms returns the copysets of a pool and whether there is such a pool.
	Rooms(pool string) ([]topology.Room, bool)
}

// Options say how the namespace is kept.
type Options struct {
	Store *metastore.Store
	Log   *zap.Logger
	Space Space
	// Raiser may be nil: then what is to be raised stays so.
	Raiser Raiser
	// Sealer seals CHAP secrets; nil: secrets are refused.
	Sealer *Sealer
	// RaiseWait bounds how long a call that takes access away waits for the copysets; 0: 2 s.
	RaiseWait time.Duration
	// RaiseRetry is the pause before copysets that did not answer are asked again; 0: 1 s.
	RaiseRetry time.Duration
	// Changed is called when something changed that gateways must know; it must not block. It may be nil.
	Changed func()
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// ids are the next free ones.
type ids struct {
	Volume    layout.VolumeID    `json:"volume"`
	Initiator layout.InitiatorID `json:"initiator"`
}

// Namespace is the state of one term as the active metaserver. It is safe for use by several goroutines.
type Namespace struct {
	o Options
	// turn is the token of the writer.
	turn chan struct{}
	// kick wakes Run.
	kick chan struct{}

	mu struct {
		sync.RWMutex
		ids         ids
		volumes     map[layout.VolumeID]*VolumeRecord
		names       map[string]layout.VolumeID // without those being deleted
		targets     map[string]*TargetRecord
		initiators  map[string]layout.InitiatorID
		attachments map[layout.VolumeID]map[layout.InitiatorID]*Attachment
		// reservations are those of the volumes that ever had any.
		reservations map[layout.VolumeID]*reservationRecord
		// pairs counts the attachments, attached those of each initiator.
		pairs    int
		attached map[layout.InitiatorID]int
		// raising are the volumes with copysets that have to be told something.
		raising map[layout.VolumeID]*raising
	}
}

// Open loads the namespace.
func Open(ctx context.Context, o Options) (*Namespace, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.RaiseWait <= 0 {
		o.RaiseWait = 2 * time.Second
	}
	if o.RaiseRetry <= 0 {
		o.RaiseRetry = time.Second
	}
	n := &Namespace{o: o, turn: make(chan struct{}, 1), kick: make(chan struct{}, 1)}
	n.turn <- struct{}{}
	n.mu.ids = ids{Volume: 1, Initiator: 1}
	n.mu.volumes = map[layout.VolumeID]*VolumeRecord{}
	n.mu.names = map[string]layout.VolumeID{}
	n.mu.targets = map[string]*TargetRecord{}
	n.mu.initiators = map[string]layout.InitiatorID{}
	n.mu.attachments = map[layout.VolumeID]map[layout.InitiatorID]*Attachment{}
	n.mu.attached = map[layout.InitiatorID]int{}
	n.mu.raising = map[layout.VolumeID]*raising{}
	return n, n.load(ctx)
}

// load reads all records. Nobody else sees n yet.
func (n *Namespace) load(ctx context.Context) error {
	s := n.o.Store
	err := metastore.LoadAll(ctx, s, idsTable, func(key string, v *ids) error {
		if key == "namespace" {
			n.mu.ids = *v
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = metastore.LoadAll(ctx, s, volumeTable, func(_ string, v *VolumeRecord) error {
		n.setVolumeLocked(v)
		return nil
	})
	if err != nil {
		return err
	}
	if err := n.loadReservations(ctx); err != nil {
		return err
	}
	err = metastore.LoadAll(ctx, s, targetTable, func(_ string, v *TargetRecord) error {
		n.mu.targets[v.IQN] = v
		return nil
	})
	if err != nil {
		return err
	}
	err = metastore.LoadAll(ctx, s, initiatorTable, func(_ string, v *initiatorRecord) error {
		n.mu.initiators[v.Name] = v.ID
		return nil
	})
	if err != nil {
		return err
	}
	err = metastore.LoadAll(ctx, s, attachmentTable, func(_ string, v *Attachment) error {
		n.setAttachmentLocked(v)
		return nil
	})
	// An id without an attachment is in no copyset: its name may as well get another one.
	maps.DeleteFunc(n.mu.initiators, func(_ string, id layout.InitiatorID) bool { return n.mu.attached[id] == 0 })
	return err
}

// tx is a change of records that is being put together.
type tx struct {
	batch metastore.Batch
	ids   ids
	// apply makes memory follow, under mu.
	apply []func()
	// unseen: nothing changes that gateways are told.
	unseen bool
}

// update runs f with the turn of the writer, commits what f put into the batch, and makes memory follow. While f runs
// nothing else changes records, so f reads memory without mu; what changes without the turn it does not touch.
func (n *Namespace) update(ctx context.Context, f func(*tx) error) error {
	select {
	case <-n.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { n.turn <- struct{}{} }()
	x := &tx{ids: n.mu.ids}
	if err := f(x); err != nil {
		return err
	}
	if x.ids != n.mu.ids {
		x.batch.Put(idsTable, "namespace", x.ids)
	}
	if x.batch.Len() == 0 {
		return nil
	}
	if err := n.o.Store.Commit(ctx, &x.batch); err != nil {
		return err
	}
	n.mu.Lock()
	n.mu.ids = x.ids
	for _, a := range x.apply {
		a()
	}
	n.mu.Unlock()
	if !x.unseen {
		n.o.Changed()
	}
	return nil
}

func key(id uint64) string { return fmt.Sprintf("%016x", id) }

// putVolume puts a volume's record into x.
func (n *Namespace) putVolume(x *tx, v *VolumeRecord) {
	x.batch.Put(volumeTable, key(uint64(v.ID)), v)
	x.apply = append(x.apply, func() { n.setVolumeLocked(v) })
}

// setVolumeLocked puts a record in the place of the one before it.
func (n *Namespace) setVolumeLocked(v *VolumeRecord) {
	if old := n.mu.volumes[v.ID]; old != nil && n.mu.names[old.Name] == v.ID {
		delete(n.mu.names, old.Name)
	}
	n.mu.volumes[v.ID] = v
	if !v.Deleting {
		n.mu.names[v.Name] = v.ID
	}
	n.setRaisingLocked(v)
}

// putTarget puts a target's record into x.
func (n *Namespace) putTarget(x *tx, t *TargetRecord) {
	x.batch.Put(targetTable, t.IQN, t)
	x.apply = append(x.apply, func() { n.mu.targets[t.IQN] = t })
}

// shuffle orders a list by chance.
func shuffle[T any](list []T) {
	mrand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}
