package desired

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/shaper"
)

// crowd is a host of n containers on bridges of 250 each.
func crowd(n int) (docker.View, []*link.Port, map[string]uint64) {
	v := docker.View{Networks: map[string]docker.Network{}}
	var ports []*link.Port
	fresh := map[string]uint64{}
	for i := range n {
		nid := fmt.Sprintf("%064d", i/250)
		if _, ok := v.Networks[nid]; !ok {
			v.Networks[nid] = docker.Network{ID: nid, Name: fmt.Sprintf("net%d", i/250), Driver: "bridge", Bridge: fmt.Sprintf("br-%d", i/250),
				Subnets:  []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", i/250))},
				Gateways: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i / 250), 0, 1})}}
			fresh[nid] = 1 << 40
		}
		id := fmt.Sprintf("%064x", i+1)
		mac := net.HardwareAddr{2, 66, 10, byte(i / 250), byte(i >> 8), byte(i)}
		dockertest.Put(&v, docker.Container{ID: id, Name: fmt.Sprintf("app-web-%d", i), State: "running", Image: "app", NetworkMode: "net0",
			Networks: []string{v.Networks[nid].Name}, Created: int64(i),
			Labels: map[string]string{"com.docker.compose.project": "app", "com.docker.compose.service": fmt.Sprintf("s%d", i%50),
				"com.docker.compose.config-hash": "x", "com.docker.compose.container-number": "1", "netguard.egress.rate": "10mbit", "role": "web"}})
		dockertest.Attach(&v, nid, docker.Attachment{ID: id, MAC: mac, IPv4: netip.AddrFrom4([4]byte{10, byte(i / 250), byte(1 + i>>8), byte(i)})})
		ports = append(ports, &link.Port{Index: 100 + i, Name: fmt.Sprintf("veth%07x", i), Master: 10 + i/250, MasterName: v.Networks[nid].Bridge,
			MTU: 1500, Seen: uint64(i + 1), NSID: i, PeerMAC: mac, PeerIndex: 2, Up: true, Pinned: true, Since: time.Now()})
	}
	return v, ports, fresh
}

// BenchmarkDesired is what one event costs of what does not touch the kernel.
func BenchmarkDesired(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			v, ports, fresh := crowd(n)
			bound, m := endpoint.NewBindings(), drafts{}
			cfg := config.Config{}
			b.ReportAllocs()
			for b.Loop() {
				es := endpoint.Join(endpoint.Observation{View: v, Ports: ports, Fresh: fresh, Now: time.Now()}, bound)
				ds := copies(m.desired(es, endpoint.Operator{}, &cfg, shaper.Hashed))
				x := extraAddresses{route: func(netip.Addr) (link.Route, error) { return link.Route{}, nil }, bridges: map[string]int{}}
				x.decide(ds)
				if len(ds) != n || ds[0].Port == nil {
					b.Fatal("not joined")
				}
			}
		})
	}
}
