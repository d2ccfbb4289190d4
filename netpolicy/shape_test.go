package netpolicy

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What a driver may lean on is so for every rule set.
func TestRuleSetShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		block := drawBlock(t)
		rs := compile(w, block)
		if !hashed(rs.Generation, generationLen) {
			t.Fatalf("generation %q", rs.Generation)
		}
		for _, f := range rs.Families() {
			sets := map[string]bool{}
			for i, s := range f.Sets {
				checkSet(t, f, s)
				if i > 0 && f.Sets[i-1].Name >= s.Name {
					t.Fatalf("%s after %s", s.Name, f.Sets[i-1].Name)
				}
				sets[s.Name] = false
			}
			chains := map[string]bool{}
			for _, c := range f.Chains {
				if !OwnsChain(c.Name) || len(c.Name) > 28 || chains[c.Name] {
					t.Fatalf("chain %q", c.Name)
				}
				for i, r := range c.Rules {
					last := i == len(c.Rules)-1
					if all := len(r.Sets) == 0 && r.Proto == AnyProtocol && len(r.Ports) == 0 && r.ICMPType == AnyICMPType; last != all {
						t.Fatalf("rule %d of %d in %s matches everything: %v", i, len(c.Rules), c.Name, all)
					}
					checkRule(t, f, r, sets, chains)
				}
				chains[c.Name] = true
			}
			for _, name := range f.Entry {
				if !chains[name] {
					t.Fatalf("there is no entry %q", name)
				}
			}
			for name, used := range sets {
				if !used {
					t.Fatalf("nothing uses %s", name)
				}
			}
		}
	})
}

func checkSet(t *rapid.T, f *Family, s Set) {
	if !OwnsSet(s.Name) || len(s.Name) > 31 {
		t.Fatalf("set %q", s.Name)
	}
	if !slices.IsSortedFunc(s.Members, CompareMembers) || len(slices.Compact(slices.Clone(s.Members))) != len(s.Members) {
		t.Fatalf("members of %s: %v", s.Name, s.Members)
	}
	for i, m := range s.Members {
		a := m.Prefix.Addr()
		switch {
		case a.Is6() != f.IPv6, m.Prefix != m.Prefix.Masked(), m.Prefix.Bits() == 0,
			s.Kind == Addrs && !m.Prefix.IsSingleIP(),
			s.Kind != Published && (m.Proto != 0 || m.Port != 0),
			s.Kind == Published && !m.Proto.HasPorts():
			t.Fatalf("member %v of %s", m, s.Name)
		}
		if s.Kind == Nets && i > 0 && s.Members[i-1].Prefix.Overlaps(m.Prefix) {
			t.Fatalf("members %v and %v of %s overlap", s.Members[i-1], m, s.Name)
		}
	}
}

func checkRule(t *rapid.T, f *Family, r Rule, sets, chains map[string]bool) {
	sides := map[Side]bool{}
	for _, m := range r.Sets {
		if _, ok := sets[m.Set]; !ok || sides[m.Side] {
			t.Fatalf("sets of %+v", r)
		}
		sets[m.Set], sides[m.Side] = true, true
	}
	used := 0
	for i, p := range r.Ports {
		used++
		if p.First != p.Last {
			used++
		}
		if p.First > p.Last || i > 0 && int(r.Ports[i-1].Last)+1 >= int(p.First) {
			t.Fatalf("ports of %+v", r)
		}
	}
	icmp := r.Proto == ICMP || r.Proto == ICMPv6
	switch {
	case used > slots, used > 0 && !r.Proto.HasPorts(), r.ICMPType != AnyICMPType && !icmp, icmp && r.Proto != familyICMP(f.IPv6):
		t.Fatalf("rule %+v", r)
	case (r.Verdict == Goto) != (r.Goto != ""), r.Verdict == Goto && !chains[r.Goto]:
		t.Fatalf("rule %+v goes to a chain that does not stand before it", r)
	}
}
