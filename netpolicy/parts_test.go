package netpolicy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSelector(t *testing.T) {
	e := Endpoint{
		Workload: Workload{Name: "shop-db-1", Project: "shop", Service: "db", Labels: map[string]string{"tier": "data", "empty": ""}},
		Shared:   []Workload{{Name: "sidecar", Project: "shop", Service: "proxy"}},
		Network:  "back",
	}
	for text, want := range map[string]bool{
		"{}":                                     true,
		"{project: shop}":                        true,
		"{project: sho}":                         false,
		"{service: db, project: shop}":           true,
		"{service: db, project: blog}":           false,
		"{container: shop-db-1}":                 true,
		"{container: shop-db}":                   false,
		"{container: 'shop-*'}":                  true,
		"{container: 'shop-db-[1-3]'}":           true,
		"{container: 'shop-db-[^1]'}":            false,
		"{container: '?'}":                       false,
		"{network: back}":                        true,
		"{network: front}":                       false,
		"{labels: {tier: data}}":                 true,
		"{labels: {tier: Data}}":                 false,
		"{labels: {tier: '*'}}":                  true,
		"{labels: {empty: ''}}":                  true,
		"{labels: {empty: '*'}}":                 true,
		"{labels: {absent: '*'}}":                false,
		"{labels: {absent: ''}}":                 false,
		"{labels: {tier: data, no: x}}":          false,
		"{service: proxy}":                       true, // lives in the same network namespace
		"{service: proxy, network: n}":           false,
		"{service: proxy, container: s}":         false,
		"{service: proxy, labels: {tier: data}}": false, // no one container is both
	} {
		p := mustLoad(t, "name: p\nselect: "+text+"\ningress: []\n")[0]
		if p.Select().Matches(&e) != want {
			t.Errorf("%s matches: %v", text, !want)
		}
	}
}

func TestSubtract(t *testing.T) {
	t.Run("cuts_out_just_the_exceptions", func(t *testing.T) {
		for _, test := range []struct {
			prefix string
			except []string
			want   []string
		}{
			{"10.0.0.0/8", nil, []string{"10.0.0.0/8"}},
			{"0.0.0.0/0", nil, []string{"0.0.0.0/1", "128.0.0.0/1"}},
			{"::/0", nil, []string{"::/1", "8000::/1"}},
			{"10.0.0.0/30", []string{"10.0.0.1/32"}, []string{"10.0.0.0/32", "10.0.0.2/31"}},
			{"10.0.0.0/30", []string{"10.0.0.1/32", "10.0.0.0/31"}, []string{"10.0.0.2/31"}},
			{"10.0.0.0/31", []string{"10.0.0.0/32", "10.0.0.1/32"}, nil},
		} {
			var except []netip.Prefix
			for _, e := range test.except {
				except = append(except, prefixOf(e))
			}
			var got []string
			for _, p := range newCIDR(prefixOf(test.prefix), except).prefixes {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s except %v: %s", test.prefix, test.except, diff)
			}
		}
	})
	t.Run("leaves_every_other_address", func(t *testing.T) {
		genAddr := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 0, rapid.Byte().Draw(t, "c") & 1, rapid.Byte().Draw(t, "d")})
		})
		rapid.Check(t, func(t *rapid.T) {
			prefix := netip.PrefixFrom(genAddr.Draw(t, "addr"), rapid.IntRange(20, 28).Draw(t, "bits")).Masked()
			var except []netip.Prefix
			for range rapid.IntRange(0, 5).Draw(t, "exceptions") {
				e := netip.PrefixFrom(genAddr.Draw(t, "except"), rapid.IntRange(23, 32).Draw(t, "length")).Masked()
				if prefix.Overlaps(e) && e.Bits() > prefix.Bits() {
					except = append(except, e)
				}
			}
			c := newCIDR(prefix, except)
			for range 30 {
				a := genAddr.Draw(t, "asked")
				want := prefix.Contains(a) && !slices.ContainsFunc(except, func(e netip.Prefix) bool { return e.Contains(a) })
				if c.contains(a) != want {
					t.Fatalf("%s has %s: %v", c, a, !want)
				}
			}
		})
	})
}

func TestPorts(t *testing.T) {
	read := func(texts ...string) ports {
		var specs []portSpec
		for _, text := range texts {
			s, err := parsePort(text)
			if err != nil {
				t.Fatal(err)
			}
			specs = append(specs, s)
		}
		return newPorts(specs)
	}
	t.Run("are_merged", func(t *testing.T) {
		for want, texts := range map[string][]string{
			"every port":                  nil,
			"tcp/80":                      {"tcp/80", "tcp/80"},
			"tcp/80-82":                   {"tcp/82", "tcp/80", "tcp/81"},
			"tcp/1-100, udp/53":           {"tcp/50-100", "udp/53", "tcp/1-49"},
			"tcp":                         {"tcp/80", "tcp", "tcp/81"},
			"tcp/1-65535":                 {"tcp/2-65535", "tcp/1"},
			"icmp":                        {"icmp/echo-request", "icmp"},
			"icmp/echo-request, tcp/5432": {"tcp/5432", "icmp/echo-request", "icmp/echo-request"},
		} {
			if got := read(texts...).String(); got != want {
				t.Errorf("%v: %q, want %q", texts, got, want)
			}
		}
	})
	t.Run("of_a_family_have_its_numbers", func(t *testing.T) {
		p := read("icmp/echo-request", "icmpv6/packet-too-big", "icmp/timestamp-request", "tcp/80")
		want := [2][]portMatch{
			{{ICMP, nil, 8}, {ICMP, nil, 13}, {TCP, []PortRange{{80, 80}}, AnyICMPType}},
			{{ICMPv6, nil, 128}, {TCP, []PortRange{{80, 80}}, AnyICMPType}, {ICMPv6, nil, 2}},
		}
		for i, ipv6 := range []bool{false, true} {
			if diff := cmp.Diff(want[i], p.matches(ipv6), cmp.AllowUnexported(portMatch{})); diff != "" {
				t.Error(diff)
			}
		}
	})
	t.Run("that_a_family_lacks_match_nothing_there", func(t *testing.T) {
		if m := read("icmpv6").matches(false); len(m) > 0 {
			t.Errorf("%v in IPv4", m)
		}
		if m := read("icmp/timestamp-request").matches(true); len(m) > 0 {
			t.Errorf("%v in IPv6", m)
		}
	})
	t.Run("fit_one_match_of_the_filter_each", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			var specs []portSpec
			for range rapid.IntRange(1, 60).Draw(t, "items") {
				first := uint16(rapid.IntRange(1, 300).Draw(t, "first"))
				specs = append(specs, portSpec{proto: TCP, ranges: []PortRange{{first, first + uint16(rapid.IntRange(0, 3).Draw(t, "more"))}}})
			}
			p := newPorts(specs)
			for port := range uint16(310) {
				want := slices.ContainsFunc(specs, func(s portSpec) bool { return s.ranges[0].First <= port && port <= s.ranges[0].Last })
				in := 0
				for _, m := range p.matches(false) {
					numbers := 0
					for _, r := range m.ranges {
						numbers++
						if r.First != r.Last {
							numbers++
						}
						if r.First <= port && port <= r.Last {
							in++
						}
					}
					if numbers == 0 || numbers > slots {
						t.Fatalf("%d numbers in %v", numbers, m.ranges)
					}
				}
				if (in == 1) != want || in > 1 {
					t.Fatalf("port %d is in %d of %v", port, in, p)
				}
			}
		})
	})
}

func TestParseService(t *testing.T) {
	for text, want := range map[string]string{
		"tcp/80": "tcp/80", "icmp": "icmp/echo-request", "icmp/time-exceeded": "icmp/time-exceeded", "icmpv6": "icmpv6/echo-request",
		"tcp": "", "tcp/80-81": "", "80": "", "": "", "80/tcp": "", "gre": "",
	} {
		s, err := ParseService(text)
		if got := s.String(); err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"ng4-s-abcdefghijklmnop": true, "ng6-ie-abcdefghijkl": true, "ng6-iel-abcdefghijkl": true, "ng4-p-abcdefghijklmnop": true,
		"ng5-s-abcdefghijklmnop": false, "ng4-s-abcdefghijklmno": false, "ng4-S-abcdefghijkl": false, "ng4--abcdefghijkl": false,
		"ng4-s-abcdefghijk1": false, "ng4-s": false, "ng4-": false, "": false, "ng4-long-abcdefghijkl": false,
	} {
		if OwnsSet(name) != want {
			t.Errorf("set %q is ours: %v", name, !want)
		}
	}
	for name, want := range map[string]bool{
		"NG-F-abcdefghijkl": true, "NG-PIL-abcdefghijkl": true, "NG-FE12-abcdefghijkl": true,
		"NG-FORWARD": false, "NG-F-abcdefghijk": false, "NG--abcdefghijkl": false, "NG-X-abcdefghijkl": false, "DOCKER-USER": false, "NG-FEILO-abcdefghijkl": false,
	} {
		if OwnsChain(name) != want {
			t.Errorf("chain %q is ours: %v", name, !want)
		}
	}
}

func TestDigestKeepsPartsApart(t *testing.T) {
	if digest(16, "ab", "c") == digest(16, "a", "bc") || digest(16, "ab") == digest(16, "ab", "") {
		t.Error("different parts have one digest")
	}
}

// TestKindsOfNames: a set that has another kind has another name: the kernel cannot change it.
func TestKindsOfNames(t *testing.T) {
	c := Load([]Source{{Name: "p.yaml", Data: []byte(`
name: db
select: {service: s1}
ingress: [{from: [{service: s0}], ports: [tcp/80]}]
egress: []
deny:
  - egress: {to: [{service: s2}]}
`)}})
	var es []Endpoint
	for i, s := range []string{"s0", "s1", "s2"} {
		e := Endpoint{Workload: Workload{ID: s, Name: s, Service: s, Labels: map[string]string{}}, Network: "n", Bridge: "br", Managed: true}
		e.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)})}
		es = append(es, e)
	}
	kinds := map[string]Kind{}
	for _, places := range []bool{false, true} {
		r := Compile(World{Endpoints: refs(es), Policies: c.Policies(), Places: places})
		for _, f := range r.Families() {
			for _, s := range f.Sets {
				if k, ok := kinds[s.Name]; ok && k != s.Kind {
					t.Errorf("%s is %v and %v", s.Name, k, s.Kind)
				}
				kinds[s.Name] = s.Kind
			}
		}
	}
}
