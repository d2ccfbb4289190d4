package guard

import (
	"net/netip"
	"testing"

	"netguard/internal/fieldtest"
)

// Whatever of a port changes, the wish is another one: Apply does nothing for the same.
func TestWishesDiffer(t *testing.T) {
	addr, addrs := netip.IPv6Unspecified(), []netip.Addr{netip.IPv6Unspecified()}
	same := func(a, b *Port) bool {
		was := Wish{Ports: []*Port{a}}
		d := Driver{settled: true, wish: was, plan: newPlan(was, allFeatures, nil)}
		ports, some := d.changed(Wish{Ports: []*Port{b}})
		return some && len(ports) == 0
	}
	fieldtest.Differs(t, same, map[string]any{"MAC": MAC{2}, "IPv4": addr, "IPv6": addr, "Gateways": addrs, "Answers": addrs, "LinkLocals": addrs,
		"Allow": Allow{MACs: []MAC{{2}}}})
}
