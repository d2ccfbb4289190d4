package endpoint

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/link"
)

// BenchmarkJoin is what it costs to join one container more, and one less.
func BenchmarkJoin(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o := Observation{View: docker.View{Networks: map[string]docker.Network{}}, Fresh: map[string]uint64{}}
			add := func(i int) {
				nid, cid := fmt.Sprintf("%064d", i%4), fmt.Sprintf("%064x", i)
				nets := maps.Clone(o.View.Networks)
				network, known := nets[nid]
				if !known {
					network = docker.Network{ID: nid, Name: nid[60:], Driver: "bridge", Bridge: "br-" + nid[60:]}
				}
				mac := net.HardwareAddr{2, 66, 10, 0, byte(i >> 8), byte(i)}
				nets[nid] = network
				o.View.Networks = nets
				dockertest.Attach(&o.View, nid, docker.Attachment{ID: cid, MAC: mac, IPv4: netip.AddrFrom4([4]byte{10, byte(i % 4), byte(i >> 8), byte(i)})})
				dockertest.Put(&o.View, docker.Container{ID: cid, Name: fmt.Sprintf("shop-svc%d-%d", i%50, i), State: "running", Labels: map[string]string{"role": "web"}})
				o.Ports = append(slices.Clone(o.Ports), &link.Port{Index: 100 + i, Name: fmt.Sprint("veth", i), Master: 10 + i%4, MasterName: network.Bridge,
					Seen: uint64(i + 1), NSID: i, PeerMAC: mac, Up: true, Pinned: true, Since: o.Now})
				o.Fresh[nid] = 1 << 40
			}
			o.Now = time.Now()
			for i := range n {
				add(i)
			}
			less := o
			add(n)
			more, bound := o, NewBindings()
			b.ReportAllocs()
			for b.Loop() {
				if len(Join(less, bound)) != n || len(Join(more, bound)) != n+1 {
					b.Fatal("not joined")
				}
			}
		})
	}
}
