package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
	"github.com/ashlar-storage/ashlar/storage/metaclient"
)

// devTarget is the name of the target that exports a dev cluster's volume.
func devTarget(volume string) string { return "iqn.2026-11.dev.ashlar:" + volume }

// setUp waits until the store serves, and creates and exports the volume unless that was done before.
func setUp(ctx context.Context, o *devOptions) error {
	client, err := metaclient.Dial(o.metaAddresses(), metaclient.Options{})
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // nothing is lost
	admin := client.Admin()
	target := devTarget(o.volumeName)
	steps := []func(context.Context) error{
		func(ctx context.Context) error { return copysetsServe(ctx, admin, o.chunkservers) },
		func(ctx context.Context) error {
			_, err := admin.CreateVolume(ctx, &metav1.CreateVolumeRequest{Name: o.volumeName, Size: uint64(o.volumeSize)})
			return unlessExists(err)
		},
		func(ctx context.Context) error {
			_, err := admin.CreateTarget(ctx, &metav1.CreateTargetRequest{Iqn: target})
			return unlessExists(err)
		},
		func(ctx context.Context) error {
			t, err := admin.ShowTarget(ctx, &metav1.ShowTargetRequest{Iqn: target})
			if err != nil || len(t.GetLuns()) > 0 {
				return err
			}
			_, err = admin.MapLUN(ctx, &metav1.MapLUNRequest{Iqn: target, Lun: 0, Volume: o.volumeName})
			return err
		},
		func(ctx context.Context) error {
			t, err := admin.ShowTarget(ctx, &metav1.ShowTargetRequest{Iqn: target})
			if err != nil || len(t.GetInitiators()) > 0 {
				return err
			}
			_, err = admin.AllowInitiator(ctx, &metav1.AllowInitiatorRequest{Iqn: target, Initiator: &metav1.Initiator{Name: "*"}})
			return err
		},
	}
	for _, step := range steps {
		if err := untilDone(ctx, step); err != nil {
			return fmt.Errorf("set the volume %s up: %w", o.volumeName, err)
		}
	}
	return nil
}

// untilDone repeats a step while the cluster is not ready for it.
func untilDone(ctx context.Context, step func(context.Context) error) error {
	for {
		err := step(ctx)
		if err == nil {
			return nil
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.FailedPrecondition, codes.Unknown, codes.DeadlineExceeded, codes.ResourceExhausted:
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-time.After(2 * devPoll):
		}
	}
}

// copysetsServe returns nil once all chunkservers are up and every copyset has a leader.
func copysetsServe(ctx context.Context, admin metav1.AdminClient, chunkservers int) error {
	list, err := admin.ListChunkservers(ctx, &metav1.ListChunkserversRequest{})
	if err != nil {
		return err
	}
	up := 0
	for _, c := range list.GetChunkservers() {
		if c.GetState() == metav1.ChunkserverState_CHUNKSERVER_STATE_UP {
			up++
		}
	}
	if up < chunkservers {
		return fmt.Errorf("%d of %d chunkservers are up", up, chunkservers)
	}
	sets, err := admin.ListCopysets(ctx, &metav1.ListCopysetsRequest{})
	if err != nil {
		return err
	}
	if len(sets.GetCopysets()) == 0 {
		return errors.New("there are no copysets yet")
	}
	for _, c := range sets.GetCopysets() {
		if c.GetLeader() == 0 {
			return fmt.Errorf("copyset %d has no leader yet", c.GetId())
		}
	}
	return nil
}

func unlessExists(err error) error {
	if status.Code(err) == codes.AlreadyExists {
		return nil
	}
	return err
}
