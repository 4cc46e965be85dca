package namespace

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/ashlar-storage/ashlar/metaserver/internal/refuse"
	"github.com/ashlar-storage/ashlar/storage/layout"
)

// Limits of targets.
const (
	targetsMax = 10_000
	// lunMax is the highest LUN: single-level LUNs as every initiator knows them.
	lunMax = 255
	// initiatorsMax bounds the access list of a target.
	initiatorsMax = 4096
	// chapNameMax bounds a CHAP user's name, in bytes.
	chapNameMax = 255
	// secretMin and secretMax bound a CHAP secret, in bytes. RFC 7143 section 12.1.3 asks for 96 bits; Windows takes 12 to
	// 16 bytes and nothing else, so a longer one would lock hosts out that come later: longSecretMax is for who says so.
	secretMin, secretMax, longSecretMax = 12, 16, 255
)

// LUN is a volume in a target.
type LUN struct {
	LUN      uint32          `json:"lun"`
	Volume   layout.VolumeID `json:"volume"`
	ReadOnly bool            `json:"read_only,omitempty"`
}

// Grant is an entry of a target's access list, with its secrets sealed.
type Grant struct {
	Name         string `json:"name"`
	ChapUser     string `json:"chap_user,omitempty"`
	MutualUser   string `json:"mutual_user,omitempty"`
	ChapSecret   []byte `json:"chap_secret,omitempty"`
	MutualSecret []byte `json:"mutual_secret,omitempty"`
	// ChapOldSecret is valid as well, until the initiator has the other one.
	ChapOldSecret []byte `json:"chap_old_secret,omitempty"`
}

// TargetRecord is what is stored of a target.
type TargetRecord struct {
	IQN    string  `json:"iqn"`
	LUNs   []LUN   `json:"luns,omitempty"`   // by LUN
	Grants []Grant `json:"grants,omitempty"` // by name
	// Redirects are where gateways send the target's initiators, by the gateway's name.
	Redirects     []Redirect `json:"redirects,omitempty"`
	CreatedUnixMs int64      `json:"created_unix_ms"`
	// Request names the call that made the target.
	Request string `json:"request,omitempty"`
	// Raise are volumes whose access generation is still to be raised for an entry that was taken out: one transaction
	// does not hold them all.
	Raise []layout.VolumeID `json:"raise,omitempty"`
}

func (t *TargetRecord) clone() *TargetRecord {
	c := *t
	c.LUNs, c.Grants, c.Raise = slices.Clone(t.LUNs), slices.Clone(t.Grants), slices.Clone(t.Raise)
	c.Redirects = slices.Clone(t.Redirects)
	return &c
}

// target returns the target of a name that is folded first. The caller holds the turn or mu.
func (n *Namespace) target(iqn string) (*TargetRecord, error) {
	low, err := TargetName(iqn)
	if err != nil {
		return nil, err
	}
	t := n.mu.targets[low]
	if t == nil {
		return nil, refuse.As(refuse.NotFound, "there is no target %s: see ashlar target list", low)
	}
	return t, nil
}

// change replaces the target iqn by what f makes of a copy; f returns false when nothing is to change.
func (n *Namespace) change(ctx context.Context, iqn string, f func(*tx, *TargetRecord) (bool, error)) (*TargetRecord, error) {
	var out *TargetRecord
	err := n.update(ctx, func(x *tx) error {
		old, err := n.target(iqn)
		if err != nil {
			return err
		}
		next := old.clone()
		changed, err := f(x, next)
		if err != nil {
			return err
		}
		out = old
		if changed {
			out = next
			n.putTarget(x, next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// CreateTarget makes a target without LUNs that nobody may use.
func (n *Namespace) CreateTarget(ctx context.Context, iqn, request string) (*TargetRecord, error) {
	low, err := TargetName(iqn)
	if err != nil {
		return nil, err
	}
	var rec *TargetRecord
	err = n.update(ctx, func(x *tx) error {
		if old := n.mu.targets[low]; old != nil {
			if request == "" || old.Request != request {
				return refuse.As(refuse.Exists, "there is a target %s already", low)
			}
			rec = old
			return nil
		}
		if len(n.mu.targets) >= targetsMax {
			return refuse.As(refuse.Exhausted, "the cluster has %d targets, which is the limit", len(n.mu.targets))
		}
		rec = &TargetRecord{IQN: low, CreatedUnixMs: n.o.Now().UnixMilli(), Request: request}
		n.putTarget(x, rec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// DeleteTarget deletes a target without LUNs.
func (n *Namespace) DeleteTarget(ctx context.Context, iqn string) error {
	return n.update(ctx, func(x *tx) error {
		t, err := n.target(iqn)
		if err != nil {
			return err
		}
		if len(t.LUNs) > 0 {
			return refuse.As(refuse.State, "target %s has %d LUNs: unmap them first (ashlar target unmap %s --lun %d)",
				t.IQN, len(t.LUNs), t.IQN, t.LUNs[0].LUN)
		}
		if len(t.Raise) > 0 {
			return refuse.As(refuse.State, "access to volumes of target %s is still being taken away: try again in a moment", t.IQN)
		}
		x.batch.Delete(targetTable, t.IQN)
		x.apply = append(x.apply, func() { delete(n.mu.targets, t.IQN) })
		return nil
	})
}

// MapLUN makes a volume a LUN of a target. Asking again for the same changes nothing.
func (n *Namespace) MapLUN(ctx context.Context, iqn string, lun uint32, volume string, readOnly bool) (*TargetRecord, error) {
	if lun > lunMax {
		return nil, refuse.As(refuse.Invalid, "a LUN is a number from 0 to %d, not %d", lunMax, lun)
	}
	return n.change(ctx, iqn, func(_ *tx, t *TargetRecord) (bool, error) {
		v, err := n.named(volume)
		if err != nil {
			return false, err
		}
		want := LUN{LUN: lun, Volume: v.ID, ReadOnly: readOnly}
		for _, l := range t.LUNs {
			switch {
			case l == want:
				return false, nil
			case l.LUN == lun:
				return false, refuse.As(refuse.Exists, "LUN %d of %s is volume %q%s: unmap it first, or choose another LUN",
					lun, t.IQN, n.nameOf(l.Volume), readOnlyNote(l.ReadOnly))
			case l.Volume == v.ID:
				return false, refuse.As(refuse.Exists, "volume %q is LUN %d of %s already", volume, l.LUN, t.IQN)
			}
		}
		t.LUNs = append(t.LUNs, want)
		slices.SortFunc(t.LUNs, func(a, b LUN) int { return int(a.LUN) - int(b.LUN) })
		return true, nil
	})
}

// UnmapLUN takes a volume out of a target and raises its access generation.
func (n *Namespace) UnmapLUN(ctx context.Context, iqn string, lun uint32) (*TargetRecord, error) {
	var raised []layout.VolumeID
	t, err := n.change(ctx, iqn, func(x *tx, t *TargetRecord) (bool, error) {
		i := slices.IndexFunc(t.LUNs, func(l LUN) bool { return l.LUN == lun })
		if i < 0 {
			return false, refuse.As(refuse.NotFound, "target %s has no LUN %d: see ashlar target show %s", t.IQN, lun, t.IQN)
		}
		raised = append(raised, t.LUNs[i].Volume)
		n.raise(x, raised)
		t.LUNs = slices.Delete(t.LUNs, i, i+1)
		return true, nil
	})
	if err == nil {
		n.await(ctx, raised...)
	}
	return t, err
}

func readOnlyNote(readOnly bool) string {
	if readOnly {
		return " (read-only)"
	}
	return ""
}

// NewGrant is an entry to be made, with its secrets as they are.
type NewGrant struct {
	Name                     string
	ChapUser, ChapSecret     string
	MutualUser, MutualSecret string
	// ChapOldSecret is a second secret of ChapUser that is valid while the first takes its place; empty: none.
	ChapOldSecret string
	// LongSecrets lets secrets be longer than what every initiator takes.
	LongSecrets bool
}

// check checks g and folds its name.
func (g *NewGrant) check() error {
	if g.Name != AnyInitiator {
		low, err := InitiatorName(g.Name)
		if err != nil {
			return err
		}
		g.Name = low
	}
	switch {
	case len(g.ChapUser) > chapNameMax || len(g.MutualUser) > chapNameMax:
		return refuse.As(refuse.Invalid, "a CHAP user's name has at most %d bytes", chapNameMax)
	case (g.ChapUser == "") != (g.ChapSecret == ""):
		return refuse.As(refuse.Invalid, "CHAP needs both a user and a secret")
	case (g.MutualUser == "") != (g.MutualSecret == ""):
		return refuse.As(refuse.Invalid, "mutual CHAP needs both a user and a secret")
	case g.MutualUser != "" && g.ChapUser == "":
		return refuse.As(refuse.Invalid, "mutual CHAP comes on top of CHAP: give a user and a secret for the initiator too")
	case g.ChapOldSecret != "" && g.ChapSecret == "":
		return refuse.As(refuse.Invalid, "an old CHAP secret is valid beside a new one: give a user and a secret too")
	case g.ChapOldSecret != "" && g.ChapOldSecret == g.ChapSecret:
		return refuse.As(refuse.Invalid, "the CHAP secret and the old one are the same: leave the old one out")
	case g.MutualSecret != "" && (g.ChapSecret == g.MutualSecret || g.ChapOldSecret == g.MutualSecret):
		return refuse.As(refuse.Invalid, "the CHAP secret and the mutual secret are the same: RFC 7143 section 12.1.3 asks for different ones")
	}
	for _, s := range []string{g.ChapSecret, g.ChapOldSecret, g.MutualSecret} {
		if err := checkSecret(s, g.LongSecrets); err != nil {
			return err
		}
	}
	return nil
}

// checkSecret checks the length of a secret; empty is none.
func checkSecret(s string, long bool) error {
	switch {
	case s == "":
	case long && len(s) > longSecretMax:
		return refuse.As(refuse.Invalid, "a long CHAP secret has at most %d bytes, this one has %d", longSecretMax, len(s))
	case len(s) < secretMin || len(s) > secretMax && !long:
		return refuse.As(refuse.Invalid, "a CHAP secret has %d to %d bytes (fewer are too weak without IPsec, and Windows takes no more; "+
			"--long-secrets permits up to %d), this one has %d", secretMin, secretMax, longSecretMax, len(s))
	}
	return nil
}

// place names what a secret is sealed for.
func place(iqn, initiator, which string) string {
	return fmt.Sprintf("%s\x00%s\x00%s", iqn, initiator, which)
}

// The secrets of a grant.
const (
	chapPlace    = "chap"
	mutualPlace  = "mutual"
	chapOldPlace = "chap-old"
)

// AllowInitiator puts an entry into a target's access list, in the place of one with the same name.
func (n *Namespace) AllowInitiator(ctx context.Context, iqn string, g NewGrant) (*TargetRecord, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	if g.ChapSecret != "" && n.o.Sealer == nil {
		return nil, refuse.As(refuse.State, "the metaserver has no key to seal CHAP secrets with: set seal-key-file in its configuration")
	}
	return n.change(ctx, iqn, func(_ *tx, t *TargetRecord) (bool, error) {
		if err := n.secretsDiffer(&g); err != nil {
			return false, err
		}
		rec := Grant{Name: g.Name, ChapUser: g.ChapUser, MutualUser: g.MutualUser}
		if g.ChapSecret != "" {
			rec.ChapSecret = n.o.Sealer.Seal(g.ChapSecret, place(t.IQN, g.Name, chapPlace))
		}
		if g.MutualSecret != "" {
			rec.MutualSecret = n.o.Sealer.Seal(g.MutualSecret, place(t.IQN, g.Name, mutualPlace))
		}
		if g.ChapOldSecret != "" {
			rec.ChapOldSecret = n.o.Sealer.Seal(g.ChapOldSecret, place(t.IQN, g.Name, chapOldPlace))
		}
		i, found := slices.BinarySearchFunc(t.Grants, g.Name, func(a Grant, name string) int { return cmp.Compare(a.Name, name) })
		switch {
		case found:
			t.Grants[i] = rec
		case len(t.Grants) >= initiatorsMax:
			return false, refuse.As(refuse.Exhausted, "target %s allows %d initiators, which is the limit", t.IQN, len(t.Grants))
		default:
			t.Grants = slices.Insert(t.Grants, i, rec)
		}
		return true, nil
	})
}

// secretsDiffer checks that a secret with which initiators prove themselves is nowhere one with which targets do: an
// initiator that knows it could answer for the target (RFC 7143 section 12.1.3).
func (n *Namespace) secretsDiffer(g *NewGrant) error {
	if n.o.Sealer == nil || g.ChapSecret == "" {
		return nil
	}
	for _, t := range n.mu.targets {
		for _, o := range t.Grants {
			for _, s := range []struct {
				sealed []byte
				which  string
			}{{o.ChapSecret, chapPlace}, {o.ChapOldSecret, chapOldPlace}} {
				if chap, ok := n.opened(s.sealed, place(t.IQN, o.Name, s.which)); ok && chap == g.MutualSecret {
					return refuse.As(refuse.Invalid, "the mutual secret is the secret of initiator %s of %s: choose another one", o.Name, t.IQN)
				}
			}
			mutual, ok := n.opened(o.MutualSecret, place(t.IQN, o.Name, mutualPlace))
			if ok && (mutual == g.ChapSecret || mutual == g.ChapOldSecret) {
				return refuse.As(refuse.Invalid, "the CHAP secret is the mutual secret of initiator %s of %s: choose another one", o.Name, t.IQN)
			}
		}
	}
	return nil
}

// opened opens a sealed secret. There is a Sealer.
func (n *Namespace) opened(sealed []byte, place string) (string, bool) {
	if sealed == nil {
		return "", false
	}
	secret, err := n.o.Sealer.Open(sealed, place)
	return secret, err == nil
}

// DenyInitiator takes an entry out of a target's access list and raises the access generation of the target's volumes.
func (n *Namespace) DenyInitiator(ctx context.Context, iqn, initiator string) (*TargetRecord, error) {
	if initiator != AnyInitiator {
		low, err := InitiatorName(initiator)
		if err != nil {
			return nil, err
		}
		initiator = low
	}
	var raised []layout.VolumeID
	t, err := n.change(ctx, iqn, func(x *tx, t *TargetRecord) (bool, error) {
		i := slices.IndexFunc(t.Grants, func(g Grant) bool { return g.Name == initiator })
		if i < 0 {
			return false, refuse.As(refuse.NotFound, "target %s has no entry for initiator %s: see ashlar target show %s", t.IQN, initiator, t.IQN)
		}
		t.Grants = slices.Delete(t.Grants, i, i+1)
		for _, l := range t.LUNs {
			raised = append(raised, l.Volume)
		}
		now := min(len(raised), raiseBatch)
		n.raise(x, raised[:now])
		t.Raise = append(t.Raise, raised[now:]...)
		return true, nil
	})
	if err == nil {
		n.await(ctx, raised...)
	}
	return t, err
}

// nameOf returns the name of a volume. The caller holds the turn or mu.
func (n *Namespace) nameOf(id layout.VolumeID) string {
	if v := n.mu.volumes[id]; v != nil {
		return v.Name
	}
	return id.String()
}

// mappedLocked returns where a volume is mapped, as "IQN/LUN". The caller holds the turn or mu.
func (n *Namespace) mappedLocked(id layout.VolumeID) []string {
	var out []string
	for _, t := range n.mu.targets {
		for _, l := range t.LUNs {
			if l.Volume == id {
				out = append(out, fmt.Sprintf("%s/%d", t.IQN, l.LUN))
			}
		}
	}
	slices.Sort(out)
	return out
}
