package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"netguard/agent/control"
	"netguard/netpolicy"
)

// judge is a host whose policies are asked about, as an agent would answer.
type judge struct {
	endpoints []*netpolicy.Endpoint
	inForce   []netpolicy.Source
}

func (j judge) compile(sources []netpolicy.Source) *netpolicy.RuleSet {
	c := netpolicy.Load(sources)
	return netpolicy.Compile(netpolicy.World{Endpoints: j.endpoints, Policies: c.Policies(), Broken: c.Broken()})
}

var gateway = []netip.Addr{netip.MustParseAddr("172.18.0.1")}

func (j judge) party(name string) (netpolicy.Party, error) {
	p := netpolicy.Party{Name: name}
	if name == "host" {
		p.Host, p.Addrs = true, gateway
		return p, nil
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		p.Addrs = []netip.Addr{addr}
		return p, nil
	}
	var known []string
	for _, e := range j.endpoints {
		if e.Name == name {
			p.Endpoints = append(p.Endpoints, *e)
		}
		known = append(known, e.Name)
	}
	if len(p.Endpoints) == 0 {
		return p, control.UnknownParty(name, known)
	}
	return p, nil
}

func (j judge) Explain(_ context.Context, src, dst, service string) (netpolicy.Explanation, error) {
	var s *netpolicy.Service
	if service != "" {
		parsed, err := netpolicy.ParseService(service)
		if err != nil {
			return netpolicy.Explanation{}, fmt.Errorf("%w: %w", control.ErrBadService, err)
		}
		s = &parsed
	}
	from, err := j.party(src)
	if err != nil {
		return netpolicy.Explanation{}, err
	}
	to, err := j.party(dst)
	if err != nil {
		return netpolicy.Explanation{}, err
	}
	return netpolicy.Explain(nil, j.compile(j.inForce), j.endpoints, from, to, s), nil
}

func (j judge) Plan(_ context.Context, sources []netpolicy.Source) (netpolicy.Delta, error) {
	if faults := netpolicy.Load(sources).Faults(); len(faults) > 0 {
		return netpolicy.Delta{}, faults
	}
	return netpolicy.Plan(j.compile(j.inForce), j.compile(sources), j.endpoints, gateway), nil
}

// shop is a host with the three tiers that ship as an example.
func shop(t *testing.T) judge {
	t.Helper()
	tiers := filepath.Join("..", "..", "policies", "web-api-database.yaml")
	text, err := os.ReadFile(tiers)
	if err != nil {
		t.Fatal(err)
	}
	j := judge{inForce: []netpolicy.Source{{Name: tiers, Data: text}}}
	for i, service := range []string{"web", "api", "db"} {
		j.endpoints = append(j.endpoints, &netpolicy.Endpoint{
			Workload: netpolicy.Workload{ID: "id" + service, Name: "shop-" + service + "-1", Project: "shop", Service: service},
			Network:  "shop_default", Managed: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 18, 0, byte(2 + i)})},
		})
	}
	j.endpoints[0].Published = []netpolicy.Publish{{HostPort: 8080, Port: 80, Proto: netpolicy.TCP}}
	return j
}

func servePolicies(t *testing.T, p control.PolicySource) string {
	t.Helper()
	return serve(t, always(healthy()), func(s *control.Server) { s.Policies(p) })
}

// policyDir makes a directory of files by name.
func policyDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// inDir takes the directory's name out of what golden files hold.
func inDir(dir, text string) string { return strings.ReplaceAll(text, dir, "DIR") }
