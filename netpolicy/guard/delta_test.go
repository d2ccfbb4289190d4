package guard

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestDelta: wish after wish, of which each differs in a few ports, while somebody else
// changes things beside it. After each one the kernel is as if all had been compared, and
// most were worked in without that.
func TestDelta(t *testing.T) {
	h := newHost(t, 6)
	d := h.driver()
	w := h.wish()
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName, Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24")}}}
	w.FragmentRate = DefaultFragmentRate
	for i := range w.Ports {
		w.edit(i).Connections = DefaultConnections
	}
	all := slices.Clone(w.Ports)
	h.apply(d, w)
	worked := 0
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		i := random.IntN(len(all))
		p := all[i]
		at := slices.IndexFunc(w.Ports, func(q *Port) bool { return q.Index == p.Index })
		what := random.IntN(9)
		look, drift := Look{}, false
		switch {
		case at < 0:
			w.Ports = append(w.Ports, p) // not where it was
		case what == 0:
			w.Ports = slices.Delete(slices.Clone(w.Ports), at, at+1)
		case what == 1:
			w.edit(at).Admitted = !w.Ports[at].Admitted
		case what == 2:
			w.edit(at).Isolated = !w.Ports[at].Isolated
		case what == 3:
			w.edit(at).Allow = Allow{MACs: []MAC{nobody}, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32"), netip.MustParsePrefix("198.51.100.0/24")}}
		case what == 4: // two ask for the same
			w.edit(at).IPv4 = all[(i+1)%len(all)].IPv4
		case what == 5:
			*w.edit(at) = *p
			w.Others = []int{1000 + round}
		case what == 6 && w.Ports[at].Admitted:
			run(t, "bridge", "link", "set", "dev", p.Name, "flood", "on")
			look.Links, drift = map[int]struct{}{p.Index: {}}, true
		case what == 7:
			run(t, "ip", "neigh", "replace", p.IPv4.String(), "lladdr", nobody.String(), "dev", bridgeName, "nud", "permanent")
			look.Neighbours = map[Neighbour]struct{}{{h.bridge, p.IPv4}: {}}
		default:
			look.Links = map[int]struct{}{h.bridge: {}, p.Index: {}}
			look.MACs = map[MAC]struct{}{p.MAC: {}}
		}
		was := d.plan
		r, err := d.Apply(w, look)
		h.check(err)
		if d.plan == was {
			worked++
		}
		if drift != (len(r.Drift) > 0) && what == 6 {
			t.Errorf("round %d: drift %q", round, r.Drift)
		}
		if len(r.Ports) != len(w.Ports) {
			t.Errorf("round %d: %d of %d ports are reported", round, len(r.Ports), len(w.Ports))
		}
		for index, p := range r.Ports {
			if p.State == Pending {
				t.Errorf("round %d: port %d is pending: %q", round, index, p.Faults)
			}
		}
		whole := d.newPlan(w)
		if left := diff(whole, &d.kernel, d.features, d.layout, scope{all: true}); left.count() > 0 {
			t.Errorf("round %d (%d): the kernel is not known to hold %v", round, what, left.about())
		}
		if after, err := d.Read(Everything); err != nil || after.Changes != 0 {
			t.Fatalf("round %d (%d): still %d changes (%q), %v", round, what, after.Changes, after.Drift, err)
		} else if a, b := fmt.Sprint(after.Ports), fmt.Sprint(r.Ports); a != b {
			t.Errorf("round %d (%d): reported\n%s, and is\n%s", round, what, b, a)
		}
		h.check(err)
	}
	if worked < 40 {
		t.Errorf("%d of 60 wishes were worked in", worked)
	}
	d.Close()
	fresh := h.driver()
	if r, err := fresh.Apply(w, Look{}); err != nil || r.Changes > 1 {
		t.Errorf("another driver changes %d, %v", r.Changes, err)
	}
}
