package netpolicy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// copycat has the labels of its image: those that the tests' policies name.
func copycat(name string, last byte) Endpoint {
	e := inheritor(name, last)
	e.Project, e.Service = "shop", "api"
	e.Labels = map[string]string{LabelProject: "shop", LabelService: "api", "role": "backup"}
	e.Inherited = map[string]bool{LabelProject: true, LabelService: true, "role": true}
	return e
}

func inheritor(name string, last byte) Endpoint {
	return Endpoint{Workload: Workload{ID: "id-" + name, Name: name}, Network: "net", Managed: true,
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, last})}}
}

func shopDB() Endpoint {
	e := inheritor("db", 2)
	e.Project, e.Service = "shop", "db"
	e.Labels = map[string]string{LabelProject: "shop", LabelService: "db"}
	return e
}

// TestLabelsOfImages: what an image says of itself closes and opens nothing.
func TestLabelsOfImages(t *testing.T) {
	honest := copycat("honest", 4)
	honest.Inherited = nil
	unread := copycat("unread", 5)
	unread.Inherited, unread.Unproven = nil, "its image cannot be read"
	sharing := inheritor("sharing", 6)
	sharing.Shared = []Workload{copycat("sidecar", 0).Workload}
	half := copycat("half", 7)
	half.Inherited = map[string]bool{LabelService: true}
	named := copycat("api-1", 8)
	all := []Endpoint{shopDB(), copycat("tool", 3), honest, unread, sharing, half, named, inheritor("plain", 9)}
	for _, test := range []struct {
		name, policies string
		to             string // whom all of them try to reach, by 198.51.100.7 if it is "out"
		labels         map[string]string
		want           []string // who does
	}{
		{name: "a_peer_by_project_and_service", policies: "{name: db, select: {service: db}, ingress: [{from: [{project: shop, service: api}]}]}", want: []string{"honest"}},
		{name: "a_peer_by_the_policy's_project", policies: "{name: db, select: {project: shop, service: db}, ingress: [{from: [{service: api}]}]}", want: []string{"honest"}},
		{name: "a_peer_by_project", policies: "{name: db, select: {service: db}, ingress: [{from: [{project: shop}]}]}", want: []string{"half", "honest"}},
		{name: "a_peer_by_value", policies: "{name: db, select: {service: db}, ingress: [{from: [{labels: {role: backup}}]}]}", want: []string{"half", "honest"}},
		{name: "a_peer_by_presence", policies: "{name: db, select: {service: db}, ingress: [{from: [{labels: {role: '*'}}]}]}", want: []string{"half", "honest"}},
		{name: "a_peer_by_name_needs_no_label", policies: "{name: db, select: {service: db}, ingress: [{from: [{container: 'api-*'}]}]}", want: []string{"api-1"}},
		{name: "a_peer_by_name_and_label", policies: "{name: db, select: {service: db}, ingress: [{from: [{container: '*', labels: {role: backup}}]}]}", want: []string{"half", "honest"}},
		{name: "every_container_is_every_one", policies: "{name: db, select: {service: db}, ingress: [{from: [{project: '*', container: '*'}]}]}",
			want: []string{"api-1", "half", "honest", "plain", "sharing", "tool", "unread"}},
		{name: "a_label_of_the_receiver", labels: map[string]string{labelIngress: "[{from: [{service: api}]}]"}, want: []string{"honest"}},
		{name: "a_deny_counts_them", policies: "{name: db, select: {service: db}, deny: [{ingress: {from: [{labels: {role: backup}}]}}]}", want: []string{"plain"}},
		{name: "a_guardrail_of_whom_they_select", policies: "{name: api, select: {project: shop, service: api}, deny: [{egress: {}}]}", want: []string{"plain"}},
		{name: "select_closes_by_them", policies: "{name: api, select: {labels: {role: backup}}, egress: []}", want: []string{"plain"}},
		{name: "what_the_only_policy_lists_passes", to: "out", policies: "{name: api, select: {service: api}, egress: [{to: [{cidr: 198.51.100.0/24}]}]}",
			want: []string{"api-1", "half", "honest", "plain", "sharing", "tool", "unread"}},
		{name: "select_adds_nothing_to_a_default", to: "out", policies: "{name: all, select: {}, egress: []}\n---\n{name: api, select: {service: api}, egress: [{to: [{cidr: 198.51.100.0/24}]}]}",
			want: []string{"honest"}},
		{name: "select_adds_nothing_to_another_policy", to: "out", policies: "{name: some, select: {container: 't*'}, egress: []}\n---\n{name: api, select: {service: api}, egress: [{to: [{entity: external}]}]}",
			want: []string{"api-1", "half", "honest", "plain", "sharing", "unread"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoints := slices.Clone(all)
			for key, value := range test.labels {
				endpoints[0].Labels = map[string]string{LabelProject: "shop", LabelService: "db", key: value}
			}
			w := World{Endpoints: refs(endpoints)}
			if test.policies != "" {
				w.Policies = mustLoad(t, test.policies)
			}
			judge := NewJudge(Compile(w))
			dst := endpoints[0].Addrs[0]
			if test.to == "out" {
				dst = netip.MustParseAddr("198.51.100.7")
			}
			var got []string
			for _, e := range endpoints[1:] {
				if judge.Walk(Packet{Src: e.Addrs[0], Dst: dst, Proto: TCP, Port: 5432}).Allowed {
					got = append(got, e.Name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("allowed are %v, want %v", got, test.want)
			}
		})
	}
}

// The first container that a policy selects only by labels of its image changes the rules. No
// further one does, nor one that goes.
func TestApart(t *testing.T) {
	const two = "{name: api, select: {service: api}, ingress: [{from: [{service: db}]}], egress: []}\n---\n" +
		"{name: db, select: {service: db}, ingress: [{from: [{service: api}]}], egress: []}\n"
	api := copycat("api", 4)
	api.Inherited = nil
	var c Compiler
	w := World{Endpoints: refs([]Endpoint{shopDB(), api}), Policies: mustLoad(t, two)}
	next := func(more ...Endpoint) *RuleSet {
		w.Endpoints = slices.Concat(w.Endpoints[:2], refs(more))
		rs := c.Compile(w)
		w.Apart = rs.Apart
		return rs
	}
	selectors := func(rs *RuleSet) (n int) {
		for _, s := range rs.V4.Sets {
			if strings.HasPrefix(s.Name, "ng4-s-") {
				n++
			}
		}
		return n
	}
	none := next()
	if n := selectors(none); n != 2 {
		t.Errorf("%d sets for two selectors that are peers and select", n)
	}
	first := next(copycat("tool", 3))
	if n := selectors(first); n != 3 || first.Generation == none.Generation { // api has one as a peer, and one as who receives
		t.Errorf("with the first one: %d sets for selectors, want 3", n)
	}
	for _, more := range [][]Endpoint{{copycat("tool", 3), copycat("other", 5)}, {copycat("other", 5)}, {}} {
		if rs := next(more...); rs.Generation != first.Generation {
			t.Errorf("with %d containers more the rules are others", len(more))
		}
	}
}

// With the labels of images nobody reaches anybody whom he does not reach without.
func TestLabelsOfImagesOpenNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		without := World{Policies: w.Policies, Broken: w.Broken}
		for _, e := range w.Endpoints {
			e.Workload = refOwn(e.Workload)
			e.Shared = slices.Clone(e.Shared)
			for i := range e.Shared {
				e.Shared[i] = refOwn(e.Shared[i])
			}
			without.Endpoints = append(without.Endpoints, e)
		}
		// Labels about policies of their own count wherever they come from.
		for i := range w.Endpoints {
			for d := range policyLabels {
				for _, pair := range [][2]*Workload{{&w.Endpoints[i].Workload, &without.Endpoints[i].Workload}} {
					if text, ok := pair[0].Labels[policyLabels[d]]; ok {
						pair[1].Labels[policyLabels[d]] = text
					}
				}
			}
		}
		with, plain := NewJudge(Compile(w)), NewJudge(Compile(without))
		for range 20 {
			ipv6 := rapid.Bool().Draw(t, "ipv6")
			src, dst := somewhere(t, "src", w.Endpoints, ipv6), somewhere(t, "dst", w.Endpoints, ipv6)
			s := drawConn(t)
			packet, ok := s.packet(Packet{Path: pathOf(src, dst), Src: src.addr, Dst: dst.addr}, ipv6)
			if ok && !(src.host && dst.host) && with.Walk(packet).Allowed && !plain.Walk(packet).Allowed {
				t.Fatalf("%+v is allowed, and would not be without the labels of images", packet)
			}
		}
	})
}

// TestUncountedLabels: people learn which label did not count, and why.
func TestUncountedLabels(t *testing.T) {
	unread := copycat("unread", 5)
	unread.Inherited, unread.Unproven = nil, "its image cannot be read"
	endpoints := []Endpoint{shopDB(), copycat("tool", 3), unread, inheritor("plain", 9)}
	w := World{Endpoints: refs(endpoints), Policies: mustLoad(t, `
name: db
select: {project: shop, service: db}
ingress: [{from: [{service: api}, {project: "*", labels: {role: "*"}}], ports: [tcp/5432]}]
---
name: other
select: {service: cache}
deny: [{ingress: {from: [{labels: {role: backup}}]}}]
`)}
	rs := Compile(w)
	for i, want := range []int{0, 3, 3, 0} {
		if got := rs.States[i].Uncounted; len(got) != want {
			t.Errorf("of %s do not count %+v, want %d", rs.States[i].Container, got, want)
		}
	}
	if u := rs.States[1].Uncounted[0]; u.Container != "tool" || u.Label != LabelProject || u.Value != "shop" || !slices.Equal(u.Policies, []string{"db"}) || u.Why != "" {
		t.Errorf("%+v", u)
	}
	if u := rs.States[2].Uncounted[0]; u.Why != unread.Unproven {
		t.Errorf("%+v", u)
	}
	ask := func(from Endpoint, service string) string {
		t.Helper()
		var about *Service
		if service != "" {
			s, err := ParseService(service)
			if err != nil {
				t.Fatal(err)
			}
			about = &s
		}
		x := Explain(nil, rs, refs(endpoints), Party{Name: from.Name, Endpoints: []Endpoint{from}}, Party{Name: "db", Endpoints: endpoints[:1]}, about)
		var all []string
		for _, a := range x.Answers {
			if a.Allowed {
				t.Errorf("%s: it is allowed", a.Sentence)
			}
			all = append(all, a.Sentence)
		}
		return strings.Join(all, "\n")
	}
	const why = `labels "com.docker.compose.project"="shop", "com.docker.compose.service"="api", "role"="backup" of tool do not count for what policy db allows: the image has the same`
	for _, service := range []string{"tcp/5432", ""} {
		if got := ask(endpoints[1], service); !strings.Contains(got, why) {
			t.Errorf("%q: the sentence does not say so: %s", service, got)
		}
	}
	if got := ask(endpoints[2], "tcp/5432"); !strings.Contains(got, unread.Unproven) {
		t.Errorf("it does not say why: %s", got)
	}
	if got := ask(endpoints[1], "tcp/22"); strings.Contains(got, "not count") {
		t.Errorf("a rule about another port is named: %s", got)
	}
	if got := ask(endpoints[3], "tcp/5432"); strings.Contains(got, "not count") {
		t.Errorf("of one without labels it is said: %s", got)
	}
}

// A container's own label may name others by labels that do not count: its own status
// says so, and not theirs.
func TestUncountedInLabels(t *testing.T) {
	owner := shopDB()
	owner.Labels = map[string]string{LabelProject: "shop", LabelService: "db", labelIngress: "[{from: [{service: api}]}]"}
	other := inheritor("other", 5)
	other.Labels = owner.Labels
	rs := Compile(World{Endpoints: refs([]Endpoint{owner, copycat("tool", 3), copycat("tool2", 4), other})})
	for i, want := range []int{4, 0, 0, 2} {
		if got := rs.States[i].Uncounted; len(got) != want {
			t.Errorf("of %s do not count %+v, want %d", rs.States[i].Container, got, want)
		}
	}
	if n := Notices(rs.States[0].Uncounted); len(n) != 2 || n[0].Container != "tool" ||
		n[0].Text != `labels "com.docker.compose.project"="shop", "com.docker.compose.service"="api" of tool do not count for what the container's label netguard.ingress allows: the image has the same, and an image opens nothing` {
		t.Errorf("%+v", n)
	}
}

// Plan tells of whom a policy more, or one less, opens or closes by labels of images.
func TestPlanCountsLabelsOfImages(t *testing.T) {
	endpoints := []Endpoint{copycat("tool", 3), inheritor("plain", 9)}
	const api = "{name: api, select: {service: api}, ingress: [{ports: [tcp/80]}]}\n"
	one := World{Endpoints: refs(endpoints), Policies: mustLoad(t, api)}
	two := World{Endpoints: refs(endpoints), Policies: mustLoad(t, api+"---\n{name: one, select: {container: 't*'}, ingress: []}\n")}
	for _, change := range []struct {
		before, after World
		allowed       bool
	}{{one, two, false}, {two, one, true}} {
		d := Plan(Compile(change.before), Compile(change.after), refs(endpoints), nil)
		if !slices.ContainsFunc(d.Connections, func(c ConnectionChange) bool {
			return slices.Contains(c.From, "plain") && slices.Equal(c.To, []string{"tool"}) && c.Allowed == change.allowed && c.Service == "tcp/80"
		}) {
			t.Errorf("plan does not tell that plain reaches tool (%v): %+v", change.allowed, d.Connections)
		}
	}
}
