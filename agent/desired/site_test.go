package desired

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
)

// An unguarded network quarantines too.
func TestUnguardedNetwork(t *testing.T) {
	d := &Endpoint{Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "web", Network: "n"}, Port: &link.Port{Seen: 7, Index: 3, MasterName: "br-n"},
		Network: docker.Network{Name: "front", Bridge: "br-n"}}}
	op := config.Config{Unguarded: config.Globs{"front"}}
	for answer, open := range map[Verdict]bool{Refuse: false, Leave: false, Admit: true} {
		got := GuardPorts([]*Endpoint{d}, Site{View: link.View{Ports: []*link.Port{d.Port}}, Managed: Bridges{"br-n": {Index: 9}}, Op: &op}, func(*Endpoint) Verdict { return answer })
		if len(got) != 1 || got[0].Admitted != open || got[0].Guarded == open {
			t.Errorf("%d: %+v", answer, got)
		}
	}
}

// TestPorts: whatever changes, ports that are kept are as if they were made for the first time.
func TestPorts(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		op := &config.Config{}
		kept, here := Ports{}, Site{Op: op, Managed: Bridges{"br-a": {Index: 1}}, Own: map[string]ownPorts{}}
		var all []*Endpoint
		stays, was := map[*Endpoint]bool{}, map[int]bool{}
		for step := range 30 {
			all, here.Ports = slices.Clone(all), slices.Clone(here.Ports)
			switch r.IntN(7) {
			case 0, 1, 2:
				n := 10*step + 5
				p := &link.Port{Index: n, Seen: uint64(n), Name: fmt.Sprint("veth", n), MasterName: []string{"br-a", "br-b"}[r.IntN(2)]}
				here.Ports = append(here.Ports, p)
				e := endpoint.Endpoint{Port: p, Attachment: docker.Attachment{MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(n)}}}
				unmanaged := []string{"", "", "why"}[r.IntN(3)]
				if r.IntN(3) > 0 {
					all = append(all, &Endpoint{Endpoint: e, Unmanaged: unmanaged})
				}
			case 3:
				if i := len(all); i > 0 {
					all = slices.Delete(all, r.IntN(i), i)
				}
			case 4:
				if i := len(here.Ports); i > 0 {
					here.Ports = slices.Delete(here.Ports, 0, 1+r.IntN(i))
				}
			case 5:
				here.Managed = Bridges{"br-a": {Index: 1}, []string{"br-b", "br-c"}[r.IntN(2)]: {Index: 2}}
				here.Op = &config.Config{AdmissionOpen: r.IntN(2) == 0}
			default:
				here.Devices = [][]link.Device{nil, {{Index: 7, Name: "eth1", MasterName: "br-a"}}}[r.IntN(2)]
				here.Own = HostPorts(here.View, config.Globs{fmt.Sprintf("veth%d*", r.IntN(9))})
			}
			verdicts := map[*Endpoint]Verdict{}
			j := Judge{Ask: func(e *Endpoint) Verdict { return verdicts[e] }, Again: r.IntN(5) == 0, Closed: map[int]bool{}, Keep: r.IntN(5) == 0}
			fresh := Judge{Ask: j.Ask, Closed: map[int]bool{}}
			for _, e := range all {
				verdicts[e], j.Closed[e.Port.Index] = Verdict(r.IntN(4)), r.IntN(2) == 0
				if !j.Again && stays[e] {
					verdicts[e] = Stay
				}
			}
			for _, p := range here.Ports {
				fresh.Closed[p.Index] = j.Closed[p.Index] || j.Keep && was[p.Index]
			}
			want := new(Ports).Of(all, here, fresh)
			clear(was)
			for _, p := range want {
				was[p.Index] = p.Isolated
			}
			for e, v := range verdicts {
				stays[e] = v == Stay
			}
			if d := cmp.Diff(want, kept.Of(all, here, j), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Fatalf("seed %d, step %d:\n%s", seed, step, d)
			}
		}
	}
}
