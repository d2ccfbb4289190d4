package netpolicy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The CIDRs of a rule, put together, are the addresses of each of them.
func TestNets(t *testing.T) {
	genAddr := rapid.Custom(func(t *rapid.T) netip.Addr {
		return netip.AddrFrom4([4]byte{10, 0, rapid.Byte().Draw(t, "c") & 3, rapid.Byte().Draw(t, "d")})
	})
	genCIDR := rapid.Custom(func(t *rapid.T) cidr {
		prefix := netip.PrefixFrom(genAddr.Draw(t, "addr"), rapid.SampledFrom([]int{0, 1, 8, 22, 23, 24, 26, 31, 32}).Draw(t, "bits")).Masked()
		var except []netip.Prefix
		for range rapid.IntRange(0, 3).Draw(t, "exceptions") {
			e := netip.PrefixFrom(genAddr.Draw(t, "except"), rapid.IntRange(23, 32).Draw(t, "length")).Masked()
			if prefix.Overlaps(e) && e.Bits() > prefix.Bits() {
				except = append(except, e)
			}
		}
		return newCIDR(prefix, except)
	})
	rapid.Check(t, func(t *rapid.T) {
		of := rapid.SliceOfN(genCIDR, 1, 6).Draw(t, "of")
		n := newNets(of)
		for i, p := range n.prefixes {
			if p.Bits() == 0 || p != p.Masked() || i > 0 && (comparePrefixes(n.prefixes[i-1], p) >= 0 || n.prefixes[i-1].Overlaps(p)) {
				t.Fatalf("%v of %v", n.prefixes, of)
			}
		}
		for range 30 {
			a := genAddr.Draw(t, "asked")
			want := false
			for _, c := range of {
				want = want || c.contains(a)
			}
			if n.contains(a) != want {
				t.Fatalf("%v of %v contains %v: %v", n.prefixes, of, a, !want)
			}
		}
	})
	for want, of := range map[string][]string{
		"[0.0.0.0/1 128.0.0.0/1]":     {"0.0.0.0/0"},
		"[0.0.0.0/1 128.0.0.0/1] 2":   {"128.0.0.0/1", "0.0.0.0/1", "10.0.0.0/8"},
		"[10.0.0.0/8]":                {"10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8"},
		"[10.0.0.0/22]":               {"10.0.3.0/24", "10.0.0.0/24", "10.0.2.0/24", "10.0.1.0/24"},
		"[10.0.1.0/24 10.0.2.0/24]":   {"10.0.1.0/24", "10.0.2.0/24"},
		"[2001:db8::/32 fd00::/8]":    {"fd00::/8", "2001:db8::/33", "2001:db8:8000::/33"},
		"[10.0.0.0/32 10.0.0.2/31] 3": {"10.0.0.0/32", "10.0.0.2/32", "10.0.0.3/32"},
	} {
		var cidrs []cidr
		for _, text := range of {
			cidrs = append(cidrs, newCIDR(netip.MustParsePrefix(text), nil))
		}
		want, _, _ = strings.Cut(want+" ", "] ")
		if got := fmt.Sprint(newNets(cidrs).prefixes); got != want+"]" {
			t.Errorf("%v are %s, want %s]", of, got, want)
		}
	}
}

// A rule of many CIDRs is one rule a family, and one set.
func TestManyCIDRsAreOneSet(t *testing.T) {
	var peers []string
	for i := range 50 {
		peers = append(peers, fmt.Sprintf("{cidr: 192.0.%d.0/24, except: [192.0.%d.128/25]}, {cidr: 2001:db8:%x::/48}", 2*i, 2*i, 2*i))
	}
	policies := mustLoad(t, "{name: a, select: {service: a}, egress: [{to: ["+strings.Join(peers, ", ")+"], ports: [tcp/443]}]}")
	rs := Compile(World{Endpoints: refs([]Endpoint{managed("a", "n", "10.0.0.2")}), Policies: policies})
	for _, f := range rs.Families() {
		count := 0
		for _, s := range f.Sets {
			if s.Kind == Nets {
				count++
				if len(s.Members) != 50 || len(s.About) > 200 || !strings.HasSuffix(s.About, " or 47 more") {
					t.Errorf("%s has %d members: %s", s.Name, len(s.Members), s.About)
				}
			}
		}
		rules := 0
		for _, c := range f.Chains {
			for _, r := range c.Rules {
				if r.Origin.Policy == "a" && strings.HasPrefix(c.Name, "NG-FE-") {
					rules++
				}
			}
		}
		if count != 1 || rules != 1 {
			t.Errorf("%d sets, %d rules", count, rules)
		}
	}
}

// What would be too large for a set becomes several, which together are the same.
func TestNetsAreBounded(t *testing.T) {
	var peers []peer
	for i := range 10 {
		var except []netip.Prefix
		for j := range 100 {
			raw := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i), 5: byte(j), 15: 1}
			except = append(except, netip.PrefixFrom(netip.AddrFrom16(raw), 128))
		}
		c := newCIDR(netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i)}), 40), except)
		peers = append(peers, peer{kind: peerNet, nets: newNets([]cidr{c})})
	}
	total := 0
	got := gathered(peers)
	for _, p := range got {
		total += len(p.nets.of)
		if n := len(p.nets.prefixes); n > maxNets {
			t.Errorf("a set of %d", n)
		}
	}
	if len(got) < 2 || total != len(peers) {
		t.Errorf("%d sets of %d CIDRs", len(got), total)
	}
}

// Only the part of a set that changes is named.
func TestPlanNamesCIDRs(t *testing.T) {
	endpoints := []Endpoint{managed("a", "n", "10.0.0.2")}
	compile := func(peers string) *RuleSet {
		return Compile(World{Endpoints: refs(endpoints), Policies: mustLoad(t, "{name: a, select: {service: a}, egress: [{to: ["+peers+"], ports: [tcp/443]}]}")})
	}
	const first = "{cidr: 192.0.2.0/24}, {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}"
	d := Plan(compile(first), compile(first+", {cidr: 203.0.113.0/25}, {cidr: 203.0.113.128/25}"), refs(endpoints), nil)
	if len(d.Connections) != 1 || d.Connections[0].Sentence != "a may now reach 203.0.113.0/25, 203.0.113.128/25 on n by tcp/443 over IPv4: allowed by policy a" {
		t.Errorf("%+v", d.Connections)
	}
}
