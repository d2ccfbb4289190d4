package agent

import (
	"fmt"
	"net/netip"
	"slices"

	"netguard/netpolicy/guard"
)

// claims leaves of a label netguard.guard.allow what the operator permits. Without
// his word a label has single addresses, no prefixes: policies hold for a container
// by its addresses, and those of a prefix are in no policy's sets.
func (d *desire) claims(permitted []netip.Prefix) {
	if len(permitted) == 0 {
		d.disclaim(func(p netip.Prefix) bool { return p.IsSingleIP() },
			"a prefix needs the operator's permission, since policies do not hold for its addresses: add it to guard.allow of the configuration, or name single addresses")
		return
	}
	d.disclaim(func(p netip.Prefix) bool {
		return slices.ContainsFunc(permitted, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) })
	}, "the operator does not permit it: guard.allow of the configuration does not have it")
}

// narrow takes away addresses by which the label would open what policies leave
// closed. What the operator permits by name stays.
func (d *desire) narrow(widened []netip.Addr, permitted []netip.Prefix) {
	if len(permitted) > 0 || len(widened) == 0 {
		return
	}
	d.disclaim(func(p netip.Prefix) bool { return !p.IsSingleIP() || !slices.Contains(widened, p.Addr()) },
		"a policy allows a CIDR that has it, and none of the container's own addresses: a label opens nothing; add it to guard.allow of the configuration if the container shall have it")
}

// disclaim takes away the addresses that are not ok, and says why.
func (d *desire) disclaim(ok func(netip.Prefix) bool, why string) {
	var left []netip.Prefix
	for _, p := range d.allow.Prefixes {
		if ok(p) {
			left = append(left, p)
			continue
		}
		text := p.String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		d.notes = append(slices.Clip(d.notes), fmt.Sprintf("label %s: %s is left out: %s", guard.LabelAllow, text, why))
	}
	d.allow.Prefixes = left
}
