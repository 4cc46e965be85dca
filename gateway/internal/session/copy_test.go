package session

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/pdu"
	"github.com/ashlar-storage/ashlar/gateway/internal/scsi"
)

// stuck is a medium whose writes last as long as their commands.
type stuck struct {
	*disk
	begun  chan struct{}
	fences []error // what the write's context said at each fence
	ctx    context.Context
}

func (s *stuck) Write(ctx context.Context, _ []byte, _ int64) error {
	s.ctx = ctx
	close(s.begun)
	<-ctx.Done()
	return ctx.Err()
}

func (s *stuck) Fence() { s.fences = append(s.fences, s.ctx.Err()) }

// copy has the first blocks of LUN 0 copied to LUN 1 by an EXTENDED COPY to LUN 0, and returns the task, which runs on a
// goroutine of its own until ended is closed. Tasks are kept.
func (p *peer) copy(t *testing.T, c *Conn) (task *Task, ended chan struct{}) {
	t.Helper()
	list := make([]byte, 16+2*32+28)
	list[3], list[11] = 2*32, 28
	for i, m := range p.luns.Mappings()[:2] {
		d := list[16+32*i:]
		id := m.Unit.Identity().NAA
		d[0], d[4], d[5], d[7] = 0xE4, 1, 3, byte(copy(d[8:], id[:]))
	}
	segment := list[80:]
	segment[0], segment[3], segment[7], segment[11] = 0x02, 0x18, 1, 8
	h := pdu.SCSICommand{
		Final: true, Write: true, ITT: 1, ExpectedDataTransferLength: uint32(len(list)), CDB: [16]byte{0x83},
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: firstSN},
	}
	binary.BigEndian.PutUint32(h.CDB[10:], uint32(len(list)))
	if err := p.send(c, header(&h, len(list)), nil, list); err != nil || len(p.tasks) != 1 {
		t.Fatalf("%d tasks, %v", len(p.tasks), err)
	}
	task, p.tasks = p.tasks[0], nil
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		task.Run()
	}()
	return task, ended
}

// TestAbortCopy aborts an EXTENDED COPY that writes to another logical unit: when the answer is queued the write was
// cancelled and then fenced, there and on the logical unit that got the command.
func TestAbortCopy(t *testing.T) {
	p := newPeer(t, defaults())
	c := p.conns[0]
	maps := p.luns.Mappings()
	to := &stuck{disk: p.disk, begun: make(chan struct{})}
	maps[1].Backend = to
	if err := p.luns.Update(maps...); err != nil {
		t.Fatal(err)
	}
	p.hold = true
	task, ended := p.copy(t, c)
	<-to.begun
	abort := pdu.TMFRequest{
		Immediate: true, Function: pdu.TMFAbortTask, ITT: 2, ReferencedTaskTag: 1,
		InitiatorSNs: pdu.InitiatorSNs{CmdSN: pdu.CmdSN(firstSN).Add(1)},
	}
	if err := p.send(c, header(&abort, 0), nil, nil); err != nil {
		t.Fatal(err)
	}
	if len(to.fences) != 1 || to.fences[0] == nil {
		t.Errorf("the other logical unit was fenced %d times, the write's context says %v", len(to.fences), to.fences)
	}
	if len(p.notes) != 1 || p.notes[0] != "fence lun="+scsi.FlatLUN(0).String() {
		t.Errorf("%q", p.notes)
	}
	<-ended
	p.s.Complete(task)
	p.settle()
	n := 0
	p.take(t, c, func(u *PDU) {
		if n++; u.Header.Opcode() != pdu.OpTMFResponse {
			t.Errorf("%v", u.Header.Opcode())
		}
	})
	if n != 1 {
		t.Errorf("%d answers", n)
	}
	p.over(t)
}
