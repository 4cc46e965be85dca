package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	metav1 "github.com/ashlar-storage/ashlar/api/meta/v1"
)

// volumeOut is a volume in JSON.
type volumeOut struct {
	ID               uint64          `json:"id"`
	Name             string          `json:"name"`
	State            string          `json:"state"`
	SizeBytes        uint64          `json:"size_bytes"`
	AllocatedBytes   uint64          `json:"allocated_bytes"`
	LogicalBlock     uint32          `json:"logical_block_bytes"`
	ChunkSizeBytes   uint32          `json:"chunk_size_bytes"`
	StripeUnitBytes  uint32          `json:"stripe_unit_bytes"`
	StripeCount      uint32          `json:"stripe_count"`
	NAA              string          `json:"naa"`
	Serial           string          `json:"serial"`
	AccessGeneration uint64          `json:"access_generation"`
	CreatedUnixMs    int64           `json:"created_unix_ms"`
	MappedTo         []string        `json:"mapped_to"`
	Stalled          string          `json:"stalled"`
	Sanitize         string          `json:"sanitize,omitempty"`
	Ranges           []rangeOut      `json:"ranges"`
	Attachments      []attachmentOut `json:"attachments"`
	// PendingGateways is there only in the answer to a change that some gateways have not confirmed.
	PendingGateways []string `json:"pending_gateways,omitempty"`
}

type rangeOut struct {
	FirstChunk uint32   `json:"first_chunk"`
	Chunks     uint32   `json:"chunks"`
	Copysets   []uint64 `json:"copysets"`
}

type attachmentOut struct {
	Initiator   string `json:"initiator"`
	InitiatorID uint64 `json:"initiator_id"`
	Epoch       uint64 `json:"epoch"`
	Gateway     string `json:"gateway"`
	SinceUnixMs int64  `json:"since_unix_ms"`
	Moves       uint32 `json:"moves"`
}

func newVolumeOut(v *metav1.Volume) volumeOut {
	out := volumeOut{
		ID: v.GetId(), Name: v.GetName(), State: "active", SizeBytes: v.GetSize(), AllocatedBytes: v.GetAllocated(),
		LogicalBlock: v.GetLogicalBlock(), ChunkSizeBytes: v.GetChunkSize(), StripeUnitBytes: v.GetStripeUnit(),
		StripeCount: v.GetStripeCount(), NAA: hex.EncodeToString(v.GetNaa()), Serial: v.GetSerial(),
		AccessGeneration: v.GetAccessGeneration(), CreatedUnixMs: v.GetCreatedUnixMs(), MappedTo: orEmpty(v.GetMappedTo()),
		Stalled: v.GetStalled(), Sanitize: sanitizeText(v.GetSanitize()), Ranges: []rangeOut{}, Attachments: []attachmentOut{},
		PendingGateways: v.GetPendingGateways(),
	}
	if v.GetState() == metav1.VolumeState_VOLUME_STATE_DELETING {
		out.State = "deleting"
	}
	for _, r := range v.GetRanges() {
		out.Ranges = append(out.Ranges, rangeOut{r.GetFirst(), r.GetChunks(), orEmpty(r.GetCopysets())})
	}
	for _, a := range v.GetAttachments() {
		out.Attachments = append(out.Attachments, attachmentOut{
			a.GetInitiator(), a.GetInitiatorId(), a.GetEpoch(), a.GetGateway(), a.GetSinceUnixMs(), a.GetMoves(),
		})
	}
	return out
}

// sanitizeText says how far a SANITIZE is, empty if there is none.
func sanitizeText(z *metav1.Sanitize) string {
	if z == nil {
		return ""
	}
	what := "unmaps"
	if z.GetPasses() > 0 {
		what = fmt.Sprintf("overwrites %d times", z.GetPasses())
	}
	total := max(uint64(z.GetPasses()), 1) * z.GetSize()
	text := fmt.Sprintf("%s, %d %% done", what, uint64(float64(z.GetDone())/float64(max(total, 1))*100))
	if z.GetFailed() {
		return text + ", failed: no host may use the volume before another SANITIZE (sg_sanitize), or EXIT FAILURE MODE if the first one allowed it"
	}
	return text
}

// orEmpty makes an empty list of a missing one, so that JSON has [] and not null.
func orEmpty[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

func volumeCommand() *cobra.Command {
	return group("volume", "Create, show, resize and delete volumes",
		volumeCreate(), volumeList(), volumeShow(), volumeResize(), volumeDelete())
}

func volumeCreate() *cobra.Command {
	var bytes, chunk, stripe size
	q := &metav1.CreateVolumeRequest{}
	c := verb("create NAME --size SIZE", "Create a volume; it uses no space until it is written", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			const most = 1<<32 - 1
			if chunk > most || stripe > most {
				return errors.New("--chunk-size and --stripe-unit: at most 256MiB")
			}
			q.Name, q.Size, q.ChunkSize, q.StripeUnit = args[0], uint64(bytes), uint32(chunk), uint32(stripe)
			v, err := s.admin.CreateVolume(ctx, q)
			if err != nil {
				return err
			}
			return s.volume(v)
		})
	c.Flags().Var(&bytes, "size", "size in bytes, or with KiB, MiB, GiB or TiB")
	c.Flags().Uint32Var(&q.LogicalBlock, "block-size", 512, "logical block size in bytes, 512 or 4096")
	c.Flags().Var(&chunk, "chunk-size", "chunk size, a power of two (default 16MiB)")
	c.Flags().Var(&stripe, "stripe-unit", "bytes in one chunk before the next one of the stripe (default: the chunk size)")
	c.Flags().Uint32Var(&q.StripeCount, "stripe-count", 1, "chunks in a stripe")
	c.Flags().StringVar(&q.Pool, "pool", "", `pool of chunkservers (default "default")`)
	mustFlag(c, "size")
	return c
}

// mustFlag marks a flag that has to be given.
func mustFlag(c *cobra.Command, name string) {
	if err := c.MarkFlagRequired(name); err != nil {
		panic("cli: the command has no flag " + name)
	}
}

// volume shows one volume.
func (s *session) volume(v *metav1.Volume) error {
	o := newVolumeOut(v)
	s.pending(o.PendingGateways)
	return s.print(o, func(w io.Writer) {
		field(w, "Name", o.Name)
		field(w, "Id", o.ID)
		field(w, "State", o.State)
		field(w, "Size", sizeText(o.SizeBytes))
		field(w, "Allocated", sizeText(o.AllocatedBytes))
		field(w, "Logical block", o.LogicalBlock)
		field(w, "Chunk size", sizeText(uint64(o.ChunkSizeBytes)))
		if o.StripeCount > 1 {
			field(w, "Stripe", fmt.Sprintf("%s over %d chunks", sizeText(uint64(o.StripeUnitBytes)), o.StripeCount))
		}
		field(w, "NAA", o.NAA)
		field(w, "Serial", o.Serial)
		field(w, "Created", age(o.CreatedUnixMs))
		field(w, "Mapped to", list(o.MappedTo))
		if o.Stalled != "" {
			field(w, "Stalled", o.Stalled)
		}
		if o.Sanitize != "" {
			field(w, "Sanitize", o.Sanitize)
		}
		for _, a := range o.Attachments {
			field(w, "Attached", a.Initiator+" through "+a.Gateway+", "+age(a.SinceUnixMs))
		}
	})
}

func volumeList() *cobra.Command {
	return verb("list", "List the volumes", cobra.NoArgs, func(ctx context.Context, s *session, _ []string) error {
		r, err := s.admin.ListVolumes(ctx, &metav1.ListVolumesRequest{})
		if err != nil {
			return err
		}
		out := []volumeOut{}
		for _, v := range r.GetVolumes() {
			out = append(out, newVolumeOut(v))
		}
		return s.print(out, func(w io.Writer) {
			row(w, "NAME", "SIZE", "ALLOCATED", "STATE", "MAPPED TO")
			for _, v := range out {
				state := v.State
				if v.Stalled != "" {
					state = "stalled"
				}
				row(w, v.Name, sizeText(v.SizeBytes), sizeText(v.AllocatedBytes), state, list(v.MappedTo))
			}
		})
	})
}

func volumeShow() *cobra.Command {
	return verb("show NAME", "Show a volume", cobra.ExactArgs(1), func(ctx context.Context, s *session, args []string) error {
		v, err := s.admin.ShowVolume(ctx, &metav1.ShowVolumeRequest{Name: args[0]})
		if err != nil {
			return err
		}
		return s.volume(v)
	})
}

func volumeResize() *cobra.Command {
	var bytes size
	c := verb("resize NAME --size SIZE", "Make a volume larger", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			v, err := s.admin.ResizeVolume(ctx, &metav1.ResizeVolumeRequest{Name: args[0], Size: uint64(bytes)})
			if err != nil {
				return err
			}
			return s.volume(v)
		})
	c.Flags().Var(&bytes, "size", "the new size in bytes, or with KiB, MiB, GiB or TiB")
	mustFlag(c, "size")
	return c
}

// deletedOut is the answer to a deletion in JSON.
type deletedOut struct {
	Deleted string `json:"deleted"`
}

// deleted shows that something was deleted.
func (s *session) deleted(what, name string) error {
	return s.print(deletedOut{name}, func(w io.Writer) { row(w, what+" "+name+" deleted") })
}

func volumeDelete() *cobra.Command {
	return verb("delete NAME", "Delete a volume that is not mapped, with its data", cobra.ExactArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			if _, err := s.admin.DeleteVolume(ctx, &metav1.DeleteVolumeRequest{Name: args[0]}); err != nil {
				return err
			}
			return s.deleted("volume", args[0])
		})
}
