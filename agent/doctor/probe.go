package doctor

import (
	"context"
	"net/netip"
	"strings"

	"netguard/internal/apart"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper/tc"
)

// probe tries what the shaper, the guard and policies need.
func probe(ctx context.Context, f *Facts) {
	if err := apart.Run(func() error {
		f.Shaper = tryShaper()
		f.Policy = tryPolicy(ctx)
		return nil
	}); err != nil {
		// guard.Probe would then try in this namespace, and doctor must not change that.
		f.Shaper.Untried, f.Policy.Untried, f.Guard.Untried = err.Error(), err.Error(), err.Error()
		return
	}
	features, err := guard.Probe()
	f.Guard.Features = features
	if err != nil {
		f.Guard.Err = err.Error()
	}
}

func tryShaper() Shaper {
	var s Shaper
	d, err := tc.Open()
	if err == nil {
		defer d.Close()
		var features tc.Features
		features, err = d.Probe()
		s.Leaf, s.Missing = string(features.Leaf), features.Missing
	}
	if err != nil {
		s.Err = err.Error()
		s.HTB, s.IFB, s.Ingress = tc.TryParts()
	}
	return s
}

// example has every kind of rule that policies come to.
const example = `name: doctor
select: {container: doctor}
ingress:
  - from: [{container: other}, {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}, {cidr: 2001:db8::/64}]
    ports: [tcp/80, udp/8000-8100, sctp/9, icmp/echo-request]
egress:
  - to: [{entity: external}]
deny:
  - egress: {to: [{cidr: 198.51.100.0/24}]}
`

func tryPolicy(ctx context.Context) Policy {
	p := Policy{Sets: iptables.TrySets()}
	d, err := iptables.Open(ctx, iptables.Options{})
	if err != nil {
		p.OpenErr = err.Error()
		return p
	}
	defer d.Close()
	wish := exampleWish()
	if _, err := d.Apply(ctx, wish); err != nil {
		p.RulesErr = err.Error()
		return p
	}
	if drift, err := d.Verify(ctx); err != nil {
		p.RulesErr = err.Error()
	} else if len(drift.Changes) > 0 {
		p.RulesErr = "rules do not read back as they were written: " + strings.Join(drift.Changes, "; ")
	}
	if _, err := d.Cut(ctx, true, func(iptables.Flow) bool { return true }); err != nil {
		p.CutErr = err.Error()
	}
	return p
}

func exampleWish() iptables.Wish {
	party := func(name string, published []netpolicy.Publish, addrs ...string) *netpolicy.Endpoint {
		e := &netpolicy.Endpoint{Workload: netpolicy.Workload{ID: name, Name: name}, Network: "doctor", Managed: true, Published: published}
		for _, a := range addrs {
			e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
		}
		return e
	}
	world := netpolicy.World{
		Endpoints: []*netpolicy.Endpoint{
			party("doctor", []netpolicy.Publish{{HostIP: netip.IPv4Unspecified(), HostPort: 8080, Port: 80, Proto: netpolicy.TCP}}, "203.0.113.2", "2001:db8:1::2"),
			party("other", nil, "203.0.113.3", "2001:db8:1::3"),
		},
		Policies: netpolicy.Load([]netpolicy.Source{{Name: "doctor", Data: []byte(example)}}).Policies(),
	}
	var all []netip.Addr
	for _, e := range world.Endpoints {
		all = append(all, e.Addrs...)
	}
	return iptables.Wish{Rules: netpolicy.Compile(world), Containers: all}
}
