package desired

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

// extraAddresses decides which extra addresses count, those that labels netguard.guard.allow
// name. A label may come with an image, so alone it can only name addresses of the container's
// own network. All other addresses need the operator's permission.
type extraAddresses struct {
	// permitted is what the operator permits: guard.allow of the configuration.
	permitted []netip.Prefix
	// route tells how the host reaches an address; bridges are ifindexes by name.
	route   func(netip.Addr) (link.Route, error)
	bridges map[string]int
	// own are the host's own ports of bridges, by bridge: anybody may be beyond them.
	own map[string]ownPorts
}

// known is what counts has to know of all endpoints.
type known struct {
	owners map[netip.Addr][]*Endpoint
	// on are the managed endpoints of each container, by its ID.
	on map[string][]*Endpoint
}

// decide removes from each endpoint's Allow the addresses that do not count, and notes why.
func (x extraAddresses) decide(endpoints []*Endpoint) {
	answers(endpoints)
	if !slices.ContainsFunc(endpoints, func(d *Endpoint) bool { return len(d.Allow.Prefixes) > 0 }) {
		return
	}
	k := known{owners: map[netip.Addr][]*Endpoint{}, on: map[string][]*Endpoint{}}
	for _, d := range endpoints {
		for _, a := range []netip.Addr{d.Attachment.IPv4.Unmap(), d.Attachment.IPv6} {
			if a.IsValid() {
				k.owners[a] = append(k.owners[a], d)
			}
		}
		if d.Unmanaged == "" {
			k.on[d.Key.Container] = append(k.on[d.Key.Container], d)
		}
	}
	for _, d := range endpoints {
		d.permit(x.permitted)
		d.disclaim(func(p netip.Prefix) (why string, ok bool) {
			if !p.IsSingleIP() {
				return "", true // the guard takes nothing of others' by it
			}
			return x.counts(d, p.Addr(), k)
		})
	}
}

// counts tells whether a label may name a single address. If not, why is the reason, or "" if
// there is nothing to report.
func (x extraAddresses) counts(d *Endpoint, a netip.Addr, k known) (why string, ok bool) {
	on := func(d *Endpoint) bool { return within(d.Network.Subnets, a) }
	for _, o := range k.owners[a] {
		switch {
		case o.Key == d.Key:
			return "", true
		case o.Key.Container != d.Key.Container:
			return "is the address of container " + o.Container.Name, false
		}
	}
	operator := len(x.permitted) > 0 // permit has compared it
	switch {
	case len(k.owners[a]) > 0: // its own, on another of its networks
		if !slices.Contains(d.answers, a) {
			d.answers = append(d.answers, a)
		}
		return "", false
	case slices.Contains(d.Network.Gateways, a):
		return "is the address of the bridge", false
	case !netpolicy.Usable(a):
		return "is left out: no container can have it", false
	case slices.ContainsFunc(d.Network.Subnets, func(s netip.Prefix) bool { return edge(s, a) }):
		return "is left out: it is the first or the last address of its subnet, which name the network and everybody on it", false
	case !operator && slices.Contains(d.Network.Reserved, a):
		return "is left out: the network reserves it for something else (--aux-address); " + ask, false
	case !operator && !on(d):
		if slices.ContainsFunc(k.on[d.Key.Container], on) {
			return "", false // it counts there
		}
		return fmt.Sprintf("is left out: it lies in no subnet of network %s (%s), and what lies outside is not a label's to give; %s",
			d.Network.Name, subnetsText(d.Network.Subnets), ask), false
	}
	if ports := x.own[d.Network.Bridge].all; !operator && len(ports) > 0 {
		return fmt.Sprintf("is left out: bridge %s holds %s, beyond which it may be somebody else's; %s", d.Network.Bridge, ports[0], ask), false
	}
	route, err := x.route(a)
	switch {
	case err != nil:
		return fmt.Sprintf("is left out for now: %v", err), false
	case route.Own && slices.Contains(route.Links, x.bridges[d.Network.Bridge]): // Docker does not always say
		return "is the address of the bridge", false
	case route.Own:
		return "is left out: it is the host's own address", false
	case route.Broadcast:
		return "is left out: it is a broadcast address of the host's", false
	}
	elsewhere := leads(route, x.bridges[d.Network.Bridge])
	if elsewhere && !operator {
		return fmt.Sprintf("is left out: the host reaches it by %s and not on network %s; %s", route.Device, d.Network.Name, ask), false
	}
	if on(d) && !elsewhere {
		d.Extra = append(d.Extra, a)
	}
	return "", true
}

// answers notes the addresses on other networks from which a container may send answers. If a
// client reaches such an address without translation, the container answers by its default
// gateway, and that may be on any of its networks. It cannot begin connections from the address
// there: see netpolicy/iptables.
func answers(endpoints []*Endpoint) {
	by := map[string][]*Endpoint{}
	for i := range endpoints {
		if d := endpoints[i]; d.Unmanaged == "" && !d.alone {
			by[d.Key.Container] = append(by[d.Key.Container], d)
		}
	}
	for _, all := range by {
		for _, d := range all {
			for _, o := range all {
				for i, a := range []netip.Addr{o.Attachment.IPv4, o.Attachment.IPv6} {
					if o != d && o.Network.Routed[i] && a.IsValid() {
						d.answers = append(d.answers, a)
					}
				}
			}
		}
	}
}

// ask is the remedy in messages about addresses.
const ask = "add it to guard.allow of the configuration if the container shall have it"

// leads tells whether a route leads away from a bridge. A default route proves nothing about an
// address: networks that Docker isolates have no route of their own.
func leads(r link.Route, bridge int) bool {
	return r.Bits > 1 && len(r.Links) > 0 && !slices.Contains(r.Links, bridge)
}

func within(subnets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) })
}

// edge tells whether an address is a subnet's first or last one. In IPv6 the first is
// every router's, and the last is like any other.
func edge(s netip.Prefix, a netip.Addr) bool {
	if !s.Contains(a) || s.Addr().BitLen()-s.Bits() < 2 {
		return false
	}
	return a == s.Masked().Addr() || a.Is4() && !s.Contains(a.Next())
}

func subnetsText(subnets []netip.Prefix) string {
	var all []string
	for _, s := range subnets {
		all = append(all, s.String())
	}
	if len(all) == 0 {
		return "it has none"
	}
	return strings.Join(all, ", ")
}

// permit removes the addresses of the label netguard.guard.allow that the operator does not
// permit. If the operator permits nothing by name, a label may name single addresses, but no
// prefixes: a prefix would take addresses that nobody has yet.
func (d *Endpoint) permit(permitted []netip.Prefix) {
	d.disclaim(func(p netip.Prefix) (string, bool) {
		switch {
		case len(permitted) == 0 && !p.IsSingleIP():
			return "is left out: a prefix needs the operator's permission: add it to guard.allow of the configuration, or name single addresses", false
		case len(permitted) > 0 && !slices.ContainsFunc(permitted, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }):
			return "is left out: the operator does not permit it: guard.allow of the configuration does not have it", false
		}
		return "", true
	})
}

// narrow removes the extra addresses that the ruling does not permit. These are addresses by
// which a label would open what policies leave closed, unless the operator permits them by
// name. And these are addresses that another container named first.
func (d *Endpoint) narrow(r *Ruling, permitted []netip.Prefix) {
	widened, contested := r.widened[d.Key], r.State(d.Key).Contested
	if len(permitted) > 0 {
		widened = slices.DeleteFunc(slices.Clone(widened), func(a netip.Addr) bool {
			return !slices.Contains(d.locals, a) || within(permitted, a)
		})
	}
	if len(widened)+len(contested) == 0 {
		return
	}
	d.disclaim(func(p netip.Prefix) (string, bool) {
		for _, c := range contested {
			if c.Prefix.Masked() == p {
				return fmt.Sprintf("is left out: container %s has it, which named it first, and policies treat the two differently: take it out of one of the two labels", c.By), false
			}
		}
		if p.IsSingleIP() && slices.Contains(widened, p.Addr()) {
			return "is left out: a policy allows a CIDR that has it, and none of the container's own addresses, or denies one that has them and not it: a label opens nothing; " + ask, false
		}
		return "", true
	})
	d.Extra = slices.DeleteFunc(slices.Clone(d.Extra), func(a netip.Addr) bool {
		return !slices.Contains(d.Allow.Prefixes, netip.PrefixFrom(a, a.BitLen()))
	})
}

// await removes addresses that the rules in force do not know yet: policies would not apply to
// them.
func (d *Endpoint) await(known *Ruling) {
	d.disclaim(func(p netip.Prefix) (string, bool) { return "", known != nil && slices.Contains(known.named[d.Key], p) })
}

// disclaim removes the addresses that do not count, and notes each reason that is not empty.
func (d *Endpoint) disclaim(counts func(netip.Prefix) (why string, ok bool)) {
	if len(d.Allow.Prefixes) == 0 {
		return // other goroutines may read an endpoint that nothing changes
	}
	var left []netip.Prefix
	for _, p := range d.Allow.Prefixes {
		why, ok := counts(p)
		if ok {
			left = append(left, p)
			continue
		}
		text := p.String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		of := "label " + guard.LabelAllow + ":"
		if p.IsSingleIP() && slices.Contains(d.locals, p.Addr()) {
			of = "link-local address"
		}
		if why != "" {
			d.notes = append(slices.Clip(d.notes), fmt.Sprintf("%s %s %s", of, text, why))
		}
	}
	d.Allow.Prefixes = left
}

// away gives the extra addresses that are not of the container's network. They count as its
// addresses only on its own bridge.
func (d *Endpoint) away() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range d.Allow.Prefixes {
		if !p.IsSingleIP() || !slices.Contains(d.Extra, p.Addr()) && !slices.Contains(d.Own(), p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// Own gives the addresses that Docker gave an endpoint, and the link-local address that follows
// from its MAC. Nobody may change the slice.
func (d *Endpoint) Own() []netip.Addr {
	if d.addrs != nil {
		return d.addrs
	}
	return ownOf(&d.Endpoint)
}

func ownOf(e *endpoint.Endpoint) []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{e.Attachment.IPv4, e.Attachment.IPv6, linkLocal(e.Attachment.MAC)} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}
