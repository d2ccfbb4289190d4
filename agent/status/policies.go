package status

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/agent/reconcile"
	"netguard/netpolicy"
)

// errNoRuling says that nothing is enforced yet.
var errNoRuling = errors.New("the agent has not read Docker's containers yet: is dockerd running? try again in a moment")

// Policies answers what policies do and would do. It implements
// control.PolicySource.
type Policies struct {
	State  func() *reconcile.State
	Links  *link.Table
	Around *ForeignRules
}

func (r *Policies) ruling() (*desired.Ruling, error) {
	s := r.State()
	if s == nil || s.Policies == nil || s.Policies.Ruling == nil {
		return nil, errNoRuling
	}
	return s.Policies.Ruling, nil
}

// Explain implements control.PolicySource.
func (r *Policies) Explain(ctx context.Context, src, dst, service string) (netpolicy.Explanation, error) {
	now, err := r.ruling()
	if err != nil {
		return netpolicy.Explanation{}, err
	}
	var about *netpolicy.Service
	if service != "" {
		s, err := netpolicy.ParseService(service)
		if err != nil {
			return netpolicy.Explanation{}, fmt.Errorf("%w: %w", control.ErrBadService, err)
		}
		about = &s
	}
	local, err := r.Links.Addresses()
	if err != nil {
		return netpolicy.Explanation{}, err
	}
	from, err := party(src, now.Rules, now.Endpoints, local)
	if err != nil {
		return netpolicy.Explanation{}, err
	}
	to, err := party(dst, now.Rules, now.Endpoints, local)
	if err != nil {
		return netpolicy.Explanation{}, err
	}
	others, err := r.Around.get(ctx)
	if err != nil {
		return netpolicy.Explanation{}, err
	}
	host := netpolicy.Host{Addrs: reachable(local), Leads: func(in string, src, dst netip.Addr, s netpolicy.Service) (netip.AddrPort, bool) {
		return others.Led(in, src, dst, s, func(a netip.Addr) bool { return reconcile.IsHost(a, local) })
	}}
	out := netpolicy.Explain(&host, now.Rules, now.Endpoints, from, to, about)
	if text := untracked(others.Untracked(about)); text != "" && len(out.Answers) > 0 {
		out.Note = strings.TrimPrefix(out.Note+"; "+text, "; ")
	}
	return out, nil
}

// Plan implements control.PolicySource.
func (r *Policies) Plan(_ context.Context, sources []netpolicy.Source) (netpolicy.Delta, error) {
	now, err := r.ruling()
	if err != nil {
		return netpolicy.Delta{}, err
	}
	c := netpolicy.Load(sources)
	if faults := c.Faults(); len(faults) > 0 {
		return netpolicy.Delta{}, faults
	}
	local, err := r.Links.Addresses()
	if err != nil {
		return netpolicy.Delta{}, err
	}
	after := netpolicy.Compile(netpolicy.World{Endpoints: now.Endpoints, Policies: append(slices.Clip(c.Policies()), now.BuiltIn...), Places: now.ByBridge, Held: now.Held, Apart: now.Rules.Apart})
	return netpolicy.Plan(now.Rules, after, now.Endpoints, reachable(local)), nil
}

// reachable gives the host's addresses that others use. It leaves out loopback and link-local
// addresses: rules treat these like any other of the host's.
func reachable(local map[netip.Addr]bool) []netip.Addr {
	var all []netip.Addr
	for a := range local {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// party finds one end of a connection. name is a container's name, the beginning of its ID or
// one of its addresses, or it is host, external or any other address.
func party(name string, rules *netpolicy.RuleSet, endpoints []*netpolicy.Endpoint, local map[netip.Addr]bool) (netpolicy.Party, error) {
	switch name {
	case "host":
		return netpolicy.Party{Name: name, Host: true, Addrs: reachable(local)}, nil
	case "external":
		taken := slices.AppendSeq(desired.Addresses(endpoints), maps.Keys(local))
		return netpolicy.Party{Name: name, Addrs: rules.Outside(taken)}, nil
	}
	if a, err := netip.ParseAddr(name); err == nil {
		a = a.Unmap().WithZone("")
		for _, one := range endpoints {
			e := *one
			if slices.Contains(e.Extra, a) {
				e.Addrs = []netip.Addr{a}
			}
			if slices.Contains(e.Addrs, a) {
				return netpolicy.Party{Name: e.Name, Endpoints: []netpolicy.Endpoint{e}}, nil
			}
		}
		return netpolicy.Party{Name: name, Host: local[a], Addrs: []netip.Addr{a}}, nil
	}
	name = strings.TrimPrefix(name, "/") // as Docker's API spells names
	id := strings.ToLower(name)
	var names []string
	for _, e := range endpoints {
		names = append(names, e.Name)
	}
	// A name wins over the beginning of an ID, as in `status`.
	for _, named := range []func(netpolicy.Workload) bool{
		func(w netpolicy.Workload) bool { return w.Name == name },
		func(w netpolicy.Workload) bool { return len(name) >= 4 && strings.HasPrefix(w.ID, id) },
	} {
		p := netpolicy.Party{Name: name}
		found := ""
		for _, e := range endpoints {
			if !named(e.Workload) && !slices.ContainsFunc(e.Shared, named) {
				continue
			}
			if found != "" && found != e.ID {
				return p, fmt.Errorf("%w: %q is the beginning of more than one container's ID: write more of it", control.ErrUnknownParty, name)
			}
			found, p.Name = e.ID, e.Name
			p.Endpoints = append(p.Endpoints, *e)
		}
		if found != "" {
			return p, nil
		}
	}
	return netpolicy.Party{Name: name}, control.UnknownParty(name, names)
}
