package portal

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ashlar-storage/ashlar/gateway/internal/login"
	"github.com/ashlar-storage/ashlar/gateway/internal/target"
)

// BenchmarkLogin logs in with CHAP and goes away, over loopback, from as many connections as there are processors. After a
// failover thousands of sessions come back at once, and some hosts wait 5 s.
func BenchmarkLogin(b *testing.B) {
	cfg := Default()
	cfg.Addresses = []string{"127.0.0.1:0"}
	m := &mediums{disks: map[uint64]*disk{testVolume: newDisk(testSize)}}
	p, _ := serverOf(b, cfg, m, func(addr string) target.Config {
		return exported(addr, testSize, 512, target.Access{Initiator: target.AnyInitiator, Auth: login.Auth{
			Initiator: &login.Credentials{User: "u", Secrets: []login.Secret{login.Secret(guardSecret)}},
		}})
	})
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := dial(b, p)
			if s := i.prove(fmt.Sprint(testInitiator, ".", n.Add(1)), guardSecret); s != login.StatusSuccess {
				b.Errorf("login: %v", s)
				return
			}
			_ = i.nc.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
}
