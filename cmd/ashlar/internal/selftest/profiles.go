package selftest

import (
	"fmt"
	"maps"
)

// everyHost are the checks that all hosts make, in order.
var everyHost = []string{
	"discovery", "login time", "erl 0", "ping", "window", "unknown command", "residual", "relogin",
	"inquiry", "lun 0", "lun absent", "report luns", "vpd 00", "vpd 80", "vpd 83", "vpd 83 paths", "vpd 83 port", "vpd b0",
	"capacity", "mode 3f", "mode 08", "mode 0a", "cache", "request sense", "reads", "beyond", "sync", "writes",
	"start stop", "rtpg", "stpg", "alua portals", "lun reset",
}

// byHost are those that one of them makes beside them.
var byHost = map[string][]string{
	"windows": {
		"digests", "initial r2t", "many sessions", "inquiry iscsi", "vpd b1", "vpd b2", "mode 1a", "log 0c", "lbprz",
		"pr in", "pr cluster", "pr paths", "pr reset", "unmap", "unmap latency", "odx page", "odx", "odx bad",
	},
	"esxi": {
		"product unique", "granularity", "vpd b2", "lbprz", "abort", "reserve 6", "ats limit", "ats", "ats race", "ats heartbeat",
		"write same zeroes", "unmap", "copy results", "xcopy", "pr in", "pr types", "pr reset",
	},
	"linux": {
		"digests", "initial r2t", "many sessions", "vpd b1", "vpd b2", "lbprz", "opcodes", "abort", "unmap", "write same unmap",
		"write same zeroes", "pr in", "pr cluster", "pr paths",
	},
}

// allChecks are all that there are, by name.
func allChecks() map[string]check {
	all := map[string]check{}
	for _, m := range []map[string]check{
		sessionChecks(), identityChecks(), aluaChecks(), capacityChecks(), provisionChecks(), reservationChecks(), atomicChecks(), copyChecks(),
	} {
		maps.Copy(all, m)
	}
	return all
}

// profile returns the checks of a host, nil if it is unknown.
func profile(host string) []check {
	more, ok := byHost[host]
	if !ok {
		return nil
	}
	all := allChecks()
	out := make([]check, 0, len(everyHost)+len(more))
	for _, n := range append(everyHost[:len(everyHost):len(everyHost)], more...) {
		c, ok := all[n]
		if !ok {
			panic(fmt.Sprintf("selftest: no check %q", n))
		}
		out = append(out, c)
	}
	return out
}
