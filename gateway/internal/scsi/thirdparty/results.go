package thirdparty

import (
	"slices"
	"sync"

	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/odx"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi/xcopy"
)

// Results are what one I_T_L nexus may ask of its copies: those under way and the last that ended, xcopy.ConcurrentMax in
// all. They are gone with the nexus. The zero value has none.
type Results struct {
	mu struct {
		sync.Mutex
		entries []*entry // in the order in which they began
	}
}

// kind is the command. List identifiers of one byte (EXTENDED COPY) and of four do not meet.
type kind byte

const (
	kindExtended kind = iota
	kindPopulate
	kindWrite
)

// entry is one copy. Its fields are guarded by the lock of its Results.
type entry struct {
	r        *Results
	kind     kind
	id       uint32
	listed   bool // it has a list identifier
	running  bool
	segments uint16
	bytes    uint64
	shift    uint // log2 of the block length
	failed   bool
	aborted  bool
	status   byte
	sense    []byte
	token    *odx.Token
}

// begin is called when a copy begins. listed tells whether the initiator gave it the list identifier id. busy means that
// it gave the same one to a copy that is under way, full that as many are under way as may be.
func (r *Results) begin(k kind, id uint32, listed bool, shift uint) (e *entry, busy, full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	running := 0
	for _, e := range r.mu.entries {
		if e.running {
			running++
		}
	}
	old := -1
	if listed {
		old = r.indexLocked(k == kindExtended, id)
	}
	switch {
	case old >= 0 && r.mu.entries[old].running:
		return nil, true, false
	case running >= xcopy.ConcurrentMax:
		return nil, false, true
	case old >= 0:
		r.mu.entries = slices.Delete(r.mu.entries, old, old+1)
	case len(r.mu.entries) >= xcopy.ConcurrentMax:
		i := slices.IndexFunc(r.mu.entries, func(e *entry) bool { return !e.running })
		r.mu.entries = slices.Delete(r.mu.entries, i, i+1)
	}
	e = &entry{r: r, kind: k, id: id, listed: listed, running: true, shift: shift}
	r.mu.entries = append(r.mu.entries, e)
	return e, false, false
}

// indexLocked returns the place of the entry of a list identifier, or -1.
func (r *Results) indexLocked(extended bool, id uint32) int {
	return slices.IndexFunc(r.mu.entries, func(e *entry) bool {
		return e.listed && e.id == id && extended == (e.kind == kindExtended)
	})
}

// advance counts what is done.
func (e *entry) advance(segments uint16, bytes int64) {
	e.r.mu.Lock()
	defer e.r.mu.Unlock()
	e.segments += segments
	e.bytes += uint64(bytes)
}

// populated keeps the token, and what it stands for in bytes.
func (e *entry) populated(t *odx.Token, bytes uint64) {
	e.r.mu.Lock()
	defer e.r.mu.Unlock()
	e.token, e.bytes = t, bytes
}

// end is Request.End.
func (e *entry) end(status byte, senseData []byte, aborted bool) {
	e.r.mu.Lock()
	defer e.r.mu.Unlock()
	e.running, e.status, e.sense, e.aborted = false, status, slices.Clone(senseData), aborted
	e.failed = aborted || status != 0
	if !e.listed {
		e.r.mu.entries = slices.DeleteFunc(e.r.mu.entries, func(o *entry) bool { return o == e })
	}
}

// Status returns what COPY STATUS and FAILED SEGMENT DETAILS tell of the EXTENDED COPY with list identifier id.
func (r *Results) Status(id byte) (result xcopy.Result, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.indexLocked(true, uint32(id))
	if i < 0 {
		return xcopy.Result{}, false
	}
	e := r.mu.entries[i]
	result = xcopy.Result{
		Status: xcopy.Completed, Segments: e.segments, Bytes: uint32(e.bytes), CommandStatus: e.status, Sense: e.sense,
	}
	switch {
	case e.running:
		result.Status = xcopy.InProgress
	case e.failed:
		result.Status = xcopy.Failed
	}
	return result, true
}

// Forget drops the result of the EXTENDED COPY with list identifier id, unless it is under way: FAILED SEGMENT DETAILS
// tells it once.
func (r *Results) Forget(id byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.indexLocked(true, uint32(id)); i >= 0 && !r.mu.entries[i].running {
		r.mu.entries = slices.Delete(r.mu.entries, i, i+1)
	}
}

// Information returns what RECEIVE ROD TOKEN INFORMATION tells of the command with list identifier id.
func (r *Results) Information(id uint32) (info odx.Information, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.indexLocked(false, id)
	if i < 0 {
		return odx.Information{}, false
	}
	e := r.mu.entries[i]
	info = odx.Information{
		Action: odx.ActionWrite, Status: odx.Completed, CommandStatus: e.status, Sense: e.sense, Blocks: e.bytes >> e.shift,
	}
	switch {
	case e.running:
		info.Status = odx.Foreground
	case e.aborted:
		info.Status = odx.Terminated
	case e.failed:
		info.Status = odx.Failed
	}
	if e.kind == kindPopulate {
		info.Action, info.Token = odx.ActionPopulate, e.token
	}
	return info, true
}
