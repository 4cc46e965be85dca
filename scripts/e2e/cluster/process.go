package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Running tells whether a process exists and holds anything. A process that was killed is a zombie at once, but
// keeps its sockets and locks until the last of its threads has left the kernel.
func Running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) == 0 || f[0] != "Z" && f[0] != "X" {
		return len(f) > 0
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && len(threads) > 1
}

// CPU is the processor time that the processes have used so far, user and system, dead threads included.
func CPU(pids []int) (time.Duration, error) {
	var ticks int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		for _, i := range []int{11, 12} { // utime, stime (proc(5) 14 and 15)
			n, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	const ticksPerSecond = 100 // USER_HZ on Linux
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// awaitGone waits until none of the processes runs.
func awaitGone(pids []int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for _, pid := range pids {
		for Running(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("pid %d still runs after %v", pid, limit)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// portsLow is the first port that FreePorts tries: below the range from which Linux takes local ports.
const portsLow, portsHigh = 20000, 32000

// FreePorts finds n free consecutive ports of 127.0.0.1 and returns the first.
func FreePorts(n int) (int, error) {
	first := portsLow + (os.Getpid()*37+int(time.Now().UnixNano()/1000))%(portsHigh-portsLow)
	for try := range 500 {
		p := portsLow + (first-portsLow+try*(n+1))%(portsHigh-portsLow-n)
		if allFree(p, n) {
			return p, nil
		}
	}
	return 0, errors.New("no free ports")
}

func allFree(p, n int) bool {
	for i := range n {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p+i))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// AwaitPort waits until somebody listens at addr.
func AwaitPort(ctx context.Context, addr string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("nobody listens at %s after %v: %w", addr, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
