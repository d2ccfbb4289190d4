package netpolicy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// explainWorld is a host with one of everything that an answer can be about.
func explainWorld(t *testing.T) (World, func(string) Party) {
	at := func(network byte, host byte) []netip.Addr {
		return []netip.Addr{netip.AddrFrom4([4]byte{172, 18, network, host}), netip.AddrFrom16([16]byte{0xfd, 0, 14: network, 15: host})}
	}
	container := func(name, service, network string, addrs []netip.Addr, labels map[string]string) Endpoint {
		return Endpoint{
			Workload: Workload{ID: "id-" + name, Name: name, Project: "shop", Service: service, Labels: labels},
			Network:  network, Managed: true, Addrs: addrs,
		}
	}
	web := container("web", "web", "front", at(1, 2), nil)
	api := container("api", "api", "front", at(1, 3), nil)
	api2 := container("api", "api", "back", at(2, 3), nil)
	db := container("db", "db", "back", at(2, 4)[:1], nil)
	db.Published = []Publish{{netip.IPv4Unspecified(), 15432, 5432, TCP}, {netip.IPv6Unspecified(), 15432, 5432, TCP}}
	alone := container("alone", "alone", "front", at(1, 5), map[string]string{labelIngress: "[{from: [{service: api}, {service: spare}]}]", labelEgress: "[]"})
	wrong := container("wrong", "wrong", "front", at(1, 6), map[string]string{labelIngress: "[{form: []}]"})
	six := container("six", "six", "front", at(1, 7)[1:], nil)
	far := container("far", "spare", "front", at(1, 9), nil)
	far.Project = "mall"
	guest := container("guest", "guest", "front", at(1, 8), nil)
	guest.Managed = false
	w := World{
		Endpoints: refs([]Endpoint{web, api, api2, db, alone, wrong, six, guest, far}),
		Policies: mustLoad(t, `
name: db
select: {project: shop, service: db}
ingress:
  - {from: [{service: api}, {service: spare}], ports: [tcp/5432]}
  - {from: [{entity: host}], ports: [icmp/echo-request, tcp/5432]}
  - {from: [{cidr: 198.51.100.0/24}], ports: [tcp/5432]}
---
name: db-backup
select: {service: db}
ingress: []
---
name: api
select: {service: api}
ingress: [{from: [{service: web}], ports: [tcp/80]}]
egress: [{to: [{service: db}]}]
---
name: no-metadata
select: {}
deny: [{egress: {to: [{cidr: 169.254.169.254/32}]}}]
`),
	}
	return w, func(name string) Party {
		p := Party{Name: name}
		switch name {
		case "host":
			p.Host, p.Addrs = true, []netip.Addr{at(1, 1)[0]}
		case "outside":
			p.Addrs = []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")}
		case "metadata":
			p.Addrs = []netip.Addr{netip.MustParseAddr("169.254.169.254")}
		}
		for _, e := range w.Endpoints {
			if e.Name == name {
				p.Endpoints = append(p.Endpoints, *e)
			}
		}
		return p
	}
}

// What a person reads who asks why.
func TestExplainReads(t *testing.T) {
	w, party := explainWorld(t)
	rs := Compile(w)
	var b strings.Builder
	for _, question := range []string{
		"api db tcp/5432", "api db tcp/22", "api db", "web api tcp/80", "web api", "web db tcp/5432", "db api tcp/80", "alone web tcp/80", "api alone tcp/80",
		"web alone tcp/80", "web wrong tcp/80", "wrong web tcp/80", "guest api tcp/80", "guest web tcp/80", "web guest tcp/80",
		"web metadata tcp/80", "api metadata tcp/80", "web outside tcp/443", "outside db tcp/5432", "outside web tcp/80",
		"host db icmp", "host db tcp/22", "host web tcp/80", "web host tcp/80", "api host tcp/80", "api host", "web host tcp/15432", "api host tcp/15432", "outside host tcp/15432",
		"six db tcp/5432", "far alone tcp/80", "far db tcp/5432", "six web tcp/80", "web web tcp/80", "host outside tcp/80", "host host tcp/80", "outside metadata tcp/80", "host outside",
	} {
		words := strings.Fields(question)
		var service *Service
		if len(words) == 3 {
			s, err := ParseService(words[2])
			if err != nil {
				t.Fatal(err)
			}
			service = &s
		}
		e := Explain(nil, rs, w.Endpoints, party(words[0]), party(words[1]), service)
		fmt.Fprintf(&b, "# %s: %v\n", question, e.Allowed)
		if e.Note != "" {
			fmt.Fprintf(&b, "%s\n", e.Note)
		}
		for _, a := range e.Answers {
			fmt.Fprintf(&b, "%s %v %q %q\n  %s\n", a.Path, a.Allowed, a.Policies, a.Rules, a.Sentence)
		}
	}
	golden(t, "testdata/explain.golden", b.String())
}
