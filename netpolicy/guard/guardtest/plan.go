package guardtest

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"netguard/netpolicy/guard"
)

// planned is what is wanted of one port.
type planned struct {
	guard.Port
	entry
	faults []string
}

// at is what the kernel shall have at the port.
func (p *planned) at(o guard.Options, f guard.Features) port {
	out := port{bridge: p.Bridge}
	if p.state == guard.Trusted {
		return out
	}
	out.program = f.Checksum
	if o.Mode == guard.Monitor {
		return out
	}
	if out.setting = p.state; p.state == guard.Admitted {
		out.pins, out.near = fmt.Sprint(p.macs), true
	}
	return out
}

// owned is a MAC of a bridge, or an address: of the bridge where it is link-local, else of
// the host.
type owned struct {
	bridge int
	mac    guard.MAC
	addr   netip.Addr
}

func address(bridge int, a netip.Addr) owned {
	if a = a.Unmap(); !a.IsLinkLocalUnicast() {
		bridge = 0
	}
	return owned{bridge: bridge, addr: a}
}

// own are a port's addresses that no label names.
func own(p guard.Port) []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{p.IPv4, p.IPv6} {
		if a.IsValid() {
			out = append(out, a.Unmap())
		}
	}
	return append(out, p.MAC.LinkLocal())
}

// plan judges a wish as guard does: of two ports that ask for the same, the older one has it.
func (k *Kernel) plan(w guard.Wish) map[int]*planned {
	out, owners := map[int]*planned{}, map[owned]string{}
	ports := slices.SortedStableFunc(slices.Values(w.Ports), func(a, b *guard.Port) int { return cmp.Compare(a.Index, b.Index) })
	for _, p := range ports {
		for _, g := range p.Gateways {
			owners[address(p.Bridge, g)] = "the bridge"
		}
	}
	for _, p := range ports {
		if first := out[p.Index]; first != nil {
			first.state, first.faults = guard.Quarantined, append(first.faults, "the port is wished for twice")
			continue
		}
		pp := &planned{Port: *p, entry: entry{state: guard.Quarantined}}
		switch out[p.Index] = pp; {
		case !p.Guarded:
			pp.state = guard.Trusted
		case pp.claim(owners) && (p.Admitted || p.Standing && k.table.admits(*p)):
			pp.state = guard.Admitted
		}
	}
	for _, index := range slices.Sorted(maps.Keys(out)) {
		if pp := out[index]; pp.state == guard.Admitted {
			pp.allow(owners)
		}
	}
	return out
}

// claim takes a port's own MAC and addresses; false where it cannot have them.
func (p *planned) claim(owners map[owned]string) bool {
	if p.MAC == (guard.MAC{}) || p.MAC[0]&1 != 0 {
		if p.Admitted {
			p.faults = append(p.faults, fmt.Sprintf("%s is no MAC of a container", p.MAC))
		}
		return !p.Admitted
	}
	all := []owned{{bridge: p.Bridge, mac: p.MAC}}
	for _, a := range own(p.Port) {
		all = append(all, address(p.Bridge, a))
	}
	for _, o := range all {
		if whose, taken := owners[o]; taken {
			p.faults = append(p.faults, fmt.Sprintf("its MAC or address %s %s is that of %s", o.mac, o.addr, whose))
			return false
		}
	}
	for _, o := range all {
		owners[o] = p.Name
	}
	return true
}

// allow adds what the label allows beyond the port's own, and nothing that is another's.
func (p *planned) allow(owners map[owned]string) {
	p.macs, p.addrs = []guard.MAC{p.MAC}, own(p.Port)
	free := func(o owned) bool {
		whose, taken := owners[o]
		if taken && whose != p.Name {
			p.faults = append(p.faults, fmt.Sprintf("label %s: %s %s is that of %s", guard.LabelAllow, o.mac, o.addr, whose))
			return false
		}
		return !taken
	}
	for _, m := range p.Allow.MACs {
		if o := (owned{bridge: p.Bridge, mac: m}); free(o) {
			owners[o], p.macs = p.Name, append(p.macs, m)
		}
	}
	for _, prefix := range p.Allow.Prefixes {
		if a := prefix.Addr(); prefix.IsSingleIP() && free(address(p.Bridge, a)) && !slices.Contains(p.addrs, a) {
			p.addrs = append(p.addrs, a)
		}
	}
}
