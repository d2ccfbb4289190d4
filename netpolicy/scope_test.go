package netpolicy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// An address of a link is asked about where the other end has one of the link.
func TestExplainKeepsLinksApart(t *testing.T) {
	both := func(name, four, link string) Endpoint {
		e := managed(name, "n", four)
		e.Addrs = append(e.Addrs, addr(link))
		return e
	}
	web, db := both("web", "10.0.0.2", "fe80::2"), both("db", "10.0.0.3", "fe80::3")
	six := both("six", "10.0.0.4", "fe80::4")
	six.Addrs = []netip.Addr{addr("10.0.0.4"), addr("2001:db8::4"), addr("fe80::4")}
	endpoints := []Endpoint{web, db, six}
	rs := Compile(World{Endpoints: refs(endpoints)})
	container := func(e Endpoint) Party { return Party{Name: e.Name, Endpoints: []Endpoint{e}} }
	outside := Party{Name: "external", Addrs: []netip.Addr{addr("203.0.113.1"), addr("2001:db8:ffff::1")}}
	for name, test := range map[string]struct {
		src, dst Party
		want     string
	}{
		"two_containers":         {container(web), container(db), "10.0.0.2>10.0.0.3 fe80::2>fe80::3"},
		"the_world":              {container(web), outside, "10.0.0.2>203.0.113.1"},
		"the_world_over_IPv6":    {outside, container(six), "203.0.113.1>10.0.0.4 2001:db8:ffff::1>2001:db8::4"},
		"the_host":               {container(web), Party{Name: "host", Host: true, Addrs: []netip.Addr{addr("10.0.0.1"), addr("2001:db8::1")}}, "10.0.0.2>10.0.0.1"},
		"a_host_without_IPv6":    {Party{Name: "host", Host: true, Addrs: []netip.Addr{addr("10.0.0.1")}}, container(web), "10.0.0.1>10.0.0.2"},
		"an_address_of_the_link": {container(six), Party{Name: "fe80::1", Host: true, Addrs: []netip.Addr{addr("fe80::1")}}, "fe80::4>fe80::1"},
	} {
		t.Run(name, func(t *testing.T) {
			service := Service{Proto: TCP, Port: 80}
			var got []string
			for _, a := range Explain(nil, rs, refs(endpoints), test.src, test.dst, &service).Answers {
				got = append(got, a.Src+">"+a.Dst)
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("%s, want %s", text, test.want)
			}
		})
	}
	after := Compile(World{Endpoints: refs(endpoints), Policies: mustLoad(t, "{name: web, select: {service: web}, egress: []}")})
	for _, c := range Plan(rs, after, refs(endpoints), []netip.Addr{addr("10.0.0.1"), addr("2001:db8::1")}).Connections {
		if c.Family != "IPv4" && strings.Contains(c.Sentence, "world") {
			t.Errorf("the plan leads from a link to the world: %s", c.Sentence)
		}
	}
}

func TestPlanOfFaults(t *testing.T) {
	endpoints := []Endpoint{managed("db", "n", "10.0.0.2")}
	c := Load(texts("db.yaml", "name: db\nselect: {service: db}\ningres: []\n"))
	before := Compile(World{Endpoints: refs(endpoints), Broken: c.Broken()})
	d := Plan(before, Compile(World{Endpoints: refs(endpoints)}), refs(endpoints), nil)
	if len(d.Endpoints) != 2 || d.Endpoints[0].Sentence != "the ingress of db on n is open: it was closed by a fault (policy db in db.yaml has a fault)" {
		t.Errorf("%+v", d.Endpoints)
	}
}

// A plan that has too much to do says so, and one that has little to tell apart
// does not have too much.
func TestPlanIsBounded(t *testing.T) {
	w := crowd(100, func(i int) string {
		return fmt.Sprintf("{name: p%d, select: {service: s%d}, ingress: []}", i, i)
	})
	after := Compile(w)
	w.Policies = w.Policies[1:]
	before := Compile(w)
	one := plan(before, after, w.Endpoints, nil, 100_000)
	if one.Truncated || len(one.Connections) != 1 || len(one.Endpoints) != 1 {
		t.Errorf("of one policy: %+v", one)
	}
	w.Policies = nil
	all := plan(Compile(w), after, w.Endpoints, nil, 100_000)
	if !all.Truncated || len(all.Endpoints) != 100 {
		t.Errorf("of all policies: truncated %v, %d endpoints", all.Truncated, len(all.Endpoints))
	}
}
