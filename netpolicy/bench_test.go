package netpolicy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// A host with many projects of three, each with its policies; every tenth
// container has a label policy.
func manyEndpoints(n int) []Endpoint {
	all := make([]Endpoint, n)
	for i := range all {
		service := []string{"web", "api", "db"}[i%3]
		all[i] = Endpoint{
			Workload: Workload{
				ID: fmt.Sprint(i), Name: fmt.Sprintf("p%d-%s-1", i/3, service), Project: fmt.Sprintf("p%d", i/3%50), Service: service,
				Labels: map[string]string{"tier": service, "com.docker.compose.project": "p", "org.opencontainers.image.title": "t", "maintainer": "m"},
			},
			Network: "n", Managed: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(2 + i%250)}), netip.AddrFrom16([16]byte{0xfd, 14: byte(i / 250), 15: byte(2 + i%250)})},
		}
		if i%10 == 0 {
			all[i].Labels[labelIngress] = "[{from: [{service: api}], ports: [tcp/80]}]"
		}
	}
	return all
}

func manyPolicies(tb testing.TB, n int) []Policy {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
name: p%d-db
select: {project: p%d, service: db}
ingress: [{from: [{service: api}], ports: [tcp/5432]}]
egress: []
`, i, i)
	}
	return mustLoad(tb, b.String())
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := World{Endpoints: refs(manyEndpoints(n)), Policies: manyPolicies(b, 50)}
			for b.Loop() {
				Compile(w)
			}
		})
	}
}

func BenchmarkPlan(b *testing.B) {
	endpoints := manyEndpoints(300)
	before := Compile(World{Endpoints: refs(endpoints), Policies: manyPolicies(b, 50)})
	after := Compile(World{Endpoints: refs(endpoints), Policies: manyPolicies(b, 49)})
	for b.Loop() {
		Plan(before, after, refs(endpoints), nil)
	}
}

// Many policies, each about a service of its own.
func BenchmarkCompileManyPolicies(b *testing.B) {
	w := crowd(1000, func(i int) string {
		return fmt.Sprintf("{name: p%d, select: {service: s%d}, ingress: [{from: [{service: s%d}]}], egress: [{to: [{service: s%d}]}]}", i, i, (i+1)%1000, (i+999)%1000)
	})
	for name, block := range map[string]int{"parted": blockRules, "whole": 1 << 30} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				compile(w, block)
			}
		})
	}
}
