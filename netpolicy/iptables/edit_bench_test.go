package iptables

import (
	"fmt"
	"net/netip"
	"testing"

	"netguard/netpolicy"
)

// scaleWorld is the world of the Scale benchmark: 50 services, each with a policy.
func scaleWorld(n int, more string) netpolicy.World {
	var sources []netpolicy.Source
	svc := func(i int) string { return fmt.Sprintf("svc%02d", i%50) }
	for i := range 50 {
		ports := "tcp/7, udp/7"
		if i == 7 {
			ports += more
		}
		sources = append(sources, netpolicy.Source{Name: svc(i) + ".yaml", Data: fmt.Appendf(nil, `name: %[1]s
select: {project: shop, service: %[1]s}
ingress:
  - from: [{service: %[2]s}, {service: %[3]s}]
    ports: [tcp/80, tcp/%[5]d]
egress:
  - to: [{service: %[4]s}]
    ports: [tcp/80, tcp/%[6]d]
  - to: [{entity: host}]
    ports: [%[7]s]
`, svc(i), svc(i+1), svc(i+7), svc(i+49), 8000+i, 8000+(i+49)%50, ports)})
	}
	w := netpolicy.World{Policies: netpolicy.Load(sources).Policies()}
	for i := range n {
		w.Endpoints = append(w.Endpoints, netpolicy.Endpoint{
			Workload: netpolicy.Workload{ID: fmt.Sprint(i), Name: fmt.Sprint("c", i), Project: "shop", Service: svc(i)},
			Network:  "n", Managed: true,
			Addrs: []netip.Addr{addr(fmt.Sprintf("10.77.%d.%d", i/250, i%250+1))},
		})
	}
	return w
}

// BenchmarkEdit is what it takes to change the rules of one policy of 50.
func BenchmarkEdit(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			namespace(b)
			d := open(b)
			was, is := wishOf(scaleWorld(n, "")), wishOf(scaleWorld(n, ", udp/8"))
			apply(b, d, was)
			var forks int
			defer measured(b)()
			for b.Loop() {
				for _, w := range []Wish{is, was} {
					forks += apply(b, d, w).Forks
				}
			}
			b.ReportMetric(float64(forks)/float64(b.N), "forks/op")
		})
	}
}
