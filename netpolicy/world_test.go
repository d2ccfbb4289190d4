package netpolicy

import (
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"
)

// A small world at random: few names, so that policies meet containers often.

var (
	genProject = rapid.SampledFrom([]string{"", "a", "b"})
	genService = rapid.SampledFrom([]string{"", "x", "y"})
	genGlob    = rapid.SampledFrom([]string{"", "c1", "c*", "?2", "c[1-3]", "*"})
	genNetwork = rapid.SampledFrom([]string{"n1", "n2"})
	genCIDR    = rapid.SampledFrom([]string{
		"0.0.0.0/0", "10.1.0.0/16", "10.1.0.0/30", "10.1.0.2/32", "192.0.2.0/24", "::/0", "fd00:1::/64", "fd00:1::2/128", "2001:db8::/32",
	})
	genExcept = map[string]*rapid.Generator[string]{
		"0.0.0.0/0":    rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.0.2/32", "192.0.2.128/25"}),
		"10.1.0.0/16":  rapid.SampledFrom([]string{"10.1.0.1/32", "10.1.0.2/31", "10.1.0.0/17"}),
		"192.0.2.0/24": rapid.SampledFrom([]string{"192.0.2.9/32", "192.0.2.0/26"}),
		"::/0":         rapid.SampledFrom([]string{"fd00:1::/64", "2001:db8::9/128"}),
		"fd00:1::/64":  rapid.SampledFrom([]string{"fd00:1::1/128", "fd00:1::2/127"}),
	}
	genPort = rapid.SampledFrom([]string{
		"tcp", "udp", "tcp/80", "tcp/81", "tcp/80-82", "udp/80", "udp/53-100", "sctp/80", "icmp", "icmp/echo-request", "icmpv6", "icmpv6/echo-request",
		"icmp/packet-too-big", "icmp/timestamp-request", "tcp/65535", "tcp/1",
	})
	outsiders = []string{"192.0.2.9", "192.0.2.200", "2001:db8::9", "2001:db8:1::1"}
	hosts     = []string{"10.1.0.1", "192.0.2.1", "fd00:1::1"}
)

func sometimes(t *rapid.T, label string, of int) bool {
	return rapid.IntRange(1, of).Draw(t, label) == of
}

// drawBlock gives how many rules a chain has before it is parted.
func drawBlock(t *rapid.T) int { return rapid.SampledFrom([]int{1, 2, 4, blockRules}).Draw(t, "block") }

func drawSelector(t *rapid.T, peer bool) refSelector {
	s := refSelector{Project: genProject.Draw(t, "project"), Service: genService.Draw(t, "service")}
	if peer && sometimes(t, "any project", 4) {
		s.Project = "*"
	}
	if sometimes(t, "by name", 4) {
		s.Container = genGlob.Draw(t, "glob")
	}
	if sometimes(t, "by network", 4) {
		s.Network = genNetwork.Draw(t, "network")
	}
	if sometimes(t, "by label", 4) {
		s.Labels = map[string]string{"tier": rapid.SampledFrom([]string{"d", "e", "*"}).Draw(t, "tier")}
	}
	return s
}

func drawPeer(t *rapid.T) refPeer {
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		return refPeer{Entity: rapid.SampledFrom([]string{"any", "host", "external"}).Draw(t, "entity")}
	case 1:
		p := refPeer{CIDR: genCIDR.Draw(t, "cidr")}
		if g := genExcept[p.CIDR]; g != nil && sometimes(t, "except", 2) {
			p.Except = rapid.SliceOfNDistinct(g, 1, 2, rapid.ID[string]).Draw(t, "excepts")
		}
		return p
	}
	return refPeer{refSelector: drawSelector(t, true)}
}

func drawRule(t *rapid.T, d Direction) refRule {
	var r refRule
	if !sometimes(t, "everyone", 5) {
		peers := make([]refPeer, rapid.IntRange(1, 3).Draw(t, "peers"))
		for i := range peers {
			peers[i] = drawPeer(t)
		}
		if d == Ingress {
			r.From = peers
		} else {
			r.To = peers
		}
	}
	if !sometimes(t, "every port", 3) {
		r.Ports = rapid.SliceOfN(genPort, 1, 3).Draw(t, "ports")
	}
	return r
}

func drawRules(t *rapid.T, d Direction) []refRule {
	rules := make([]refRule, rapid.IntRange(0, 2).Draw(t, "rules"))
	for i := range rules {
		rules[i] = drawRule(t, d)
	}
	return rules
}

func drawPolicies(t *rapid.T) []refPolicy {
	var all []refPolicy
	for _, name := range []string{"p1", "p2", "p3", "p4"}[:rapid.IntRange(0, 4).Draw(t, "policies")] {
		p := refPolicy{Name: name, Select: drawSelector(t, false)}
		if !sometimes(t, "no ingress", 3) {
			rules := drawRules(t, Ingress)
			p.Ingress = &rules
		}
		if !sometimes(t, "no egress", 3) || p.Ingress == nil {
			rules := drawRules(t, Egress)
			p.Egress = &rules
		}
		if sometimes(t, "guardrail", 4) {
			d := refDeny{}
			if sometimes(t, "which", 2) {
				r := drawRule(t, Ingress)
				d.Ingress = &r
			} else {
				r := drawRule(t, Egress)
				d.Egress = &r
			}
			p.Deny = []refDeny{d}
		}
		all = append(all, p)
	}
	return all
}

// render writes policies as a file.
func render(t *rapid.T, policies []refPolicy) string {
	var b strings.Builder
	for _, p := range policies {
		text, err := yaml.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("---\n" + string(text))
	}
	return b.String()
}

func drawWorkload(t *rapid.T, name string) Workload {
	w := Workload{ID: "id-" + name, Name: name, Project: genProject.Draw(t, "project"), Service: genService.Draw(t, "service"), Labels: map[string]string{}}
	if sometimes(t, "tier", 2) {
		w.Labels["tier"] = rapid.SampledFrom([]string{"d", "e"}).Draw(t, "tier")
	}
	for _, d := range Directions {
		if !sometimes(t, "label "+d.String(), 5) {
			continue
		}
		text, err := yaml.Marshal(drawRules(t, d))
		if err != nil {
			t.Fatal(err)
		}
		w.Labels[policyLabels[d]] = string(text)
	}
	if sometimes(t, "image", 3) {
		w.Inherited = map[string]bool{}
		for _, label := range []string{LabelProject, LabelService, "tier"} {
			if sometimes(t, "of the image", 2) {
				w.Inherited[label] = true
			}
		}
	} else if sometimes(t, "image unread", 20) {
		w.Unproven = "its image cannot be read"
	}
	if sometimes(t, "misspelt", 30) {
		w.Labels["netguard.ingres"] = "[]"
	}
	if sometimes(t, "labels unread", 30) {
		w.Project, w.Service, w.Labels, w.Unread = "", "", nil, "its labels are too large"
	}
	return w
}

func drawEndpoint(t *rapid.T, i int) Endpoint {
	e := Endpoint{
		Workload: drawWorkload(t, "c"+string(rune('1'+i))),
		Network:  genNetwork.Draw(t, "network"),
		Managed:  !sometimes(t, "unmanaged", 8),
	}
	v4, v6 := netip.AddrFrom4([4]byte{10, 1, 0, byte(2 + i)}), netip.AddrFrom16([16]byte{0xfd, 0, 0, 1, 15: byte(2 + i)})
	switch rapid.IntRange(0, 3).Draw(t, "families") {
	case 0:
		e.Addrs = []netip.Addr{v4}
	case 1:
		e.Addrs = []netip.Addr{v6}
	default:
		e.Addrs = []netip.Addr{v4, v6}
	}
	if sometimes(t, "shared", 10) {
		e.Shared = []Workload{drawWorkload(t, "s"+string(rune('1'+i)))}
	}
	if sometimes(t, "publishes", 3) {
		p := Publish{HostPort: uint16(8000 + i), Port: rapid.SampledFrom([]uint16{80, 81, 443}).Draw(t, "port"), Proto: rapid.SampledFrom([]Protocol{TCP, UDP}).Draw(t, "proto")}
		if ip := rapid.SampledFrom([]string{"", "0.0.0.0", "::", "10.1.0.1"}).Draw(t, "host ip"); ip != "" {
			p.HostIP = netip.MustParseAddr(ip)
		}
		e.Published = []Publish{p}
	}
	return e
}

func drawEndpoints(t *rapid.T) []Endpoint {
	all := make([]Endpoint, rapid.IntRange(1, 6).Draw(t, "endpoints"))
	for i := range all {
		all[i] = drawEndpoint(t, i)
	}
	return all
}

// drawWorld gives a world and what the reference knows of it.
func drawWorld(t *rapid.T) (World, reference) {
	policies := drawPolicies(t)
	text := render(t, policies)
	c := Load(texts("random.yaml", text))
	if faults := c.Faults(); len(faults) > 0 {
		t.Fatalf("%v\n%s", faults, text)
	}
	w := World{Endpoints: refs(drawEndpoints(t)), Policies: c.Policies()}
	if w.Unpublished = sometimes(t, "unpublished", 3); w.Unpublished {
		for i := range w.Endpoints {
			w.Endpoints[i].Published = nil
		}
	}
	ref := reference{policies: policies}
	if sometimes(t, "broken", 10) {
		s := drawSelector(t, false)
		w.Broken = []Broken{{Policy: "bad", Select: Selector{project: s.Project, service: s.Service}}}
		ref.locked = []refSelector{{Project: s.Project, Service: s.Service}}
	}
	return w, ref
}

// drawConn gives what a connection is for.
func drawConn(t *rapid.T) Service {
	switch rapid.IntRange(0, 4).Draw(t, "service") {
	case 0:
		return Service{Proto: ICMP, icmp: icmpTypes[rapid.IntRange(0, len(icmpTypes)-1).Draw(t, "type")]}
	case 1:
		return Service{Proto: otherProtocol}
	}
	return Service{
		Proto: rapid.SampledFrom([]Protocol{TCP, TCP, UDP, SCTP}).Draw(t, "proto"),
		Port:  rapid.SampledFrom([]uint16{1, 53, 79, 80, 81, 82, 83, 443, 65535}).Draw(t, "port"),
	}
}

func prefixOf(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// labelFaults finds what is wrong with the labels of a container.
func labelFaults(w Workload) Faults {
	_, faults := new(labelReader).workload(&w)
	return faults
}

// refs gives endpoints as a World has them: nothing changes them afterwards.
func refs(endpoints []Endpoint) []*Endpoint {
	out := make([]*Endpoint, len(endpoints))
	for i, e := range endpoints {
		out[i] = &e
	}
	return out
}
