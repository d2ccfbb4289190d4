package netpolicy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDiffMembers(t *testing.T) {
	member := rapid.Custom(func(t *rapid.T) Member {
		return Member{Prefix: newCIDR(prefixOf(rapid.SampledFrom([]string{"10.0.0.0/8", "10.0.0.1/32", "192.0.2.0/24", "10.0.0.2/32"}).Draw(t, "prefix")), nil).prefix,
			Proto: rapid.SampledFrom([]Protocol{0, TCP}).Draw(t, "proto")}
	})
	rapid.Check(t, func(t *rapid.T) {
		have, want := rapid.SliceOf(member).Draw(t, "have"), rapid.SliceOf(member).Draw(t, "want")
		add, del := DiffMembers(have, want)
		got := map[Member]bool{}
		for _, m := range have {
			got[m] = true
		}
		for _, m := range add {
			if got[m] {
				t.Fatalf("adds %v, which is there", m)
			}
			got[m] = true
		}
		for _, m := range del {
			if !got[m] {
				t.Fatalf("deletes %v, which is not there", m)
			}
			delete(got, m)
		}
		wanted := map[Member]bool{}
		for _, m := range want {
			wanted[m] = true
		}
		if diff := cmp.Diff(wanted, got, cmp.Comparer(func(a, b Member) bool { return a == b })); diff != "" {
			t.Fatal(diff)
		}
	})
}

// withMembers gives the rule set with other members.
func withMembers(rs *RuleSet, have [2]map[string][]Member) *RuleSet {
	other := *rs
	for i, f := range other.Families() {
		f.Sets = slices.Clone(f.Sets)
		for j := range f.Sets {
			f.Sets[j].Members = sorted(slices.Clone(have[i][f.Sets[j].Name]))
		}
	}
	return &other
}

// On the way from one membership to another, member by member, nothing passes
// that passes neither before nor after.
func TestChangesOpenNothingInBetween(t *testing.T) {
	steps := 0
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		w.Unpublished = false // with it the first published port makes other rules
		block := drawBlock(t)
		for i := range w.Endpoints {
			delete(w.Endpoints[i].Labels, labelIngress)
			delete(w.Endpoints[i].Labels, labelEgress)
			w.Endpoints[i].Shared = nil
		}
		after := w
		w.Endpoints = slices.Clone(w.Endpoints)[rapid.IntRange(0, len(w.Endpoints)-1).Draw(t, "new"):]
		before := compile(w, block)
		after.Endpoints = slices.Clone(w.Endpoints)
		for i := range after.Endpoints {
			if sometimes(t, "changes", 2) { // an address goes to another container
				e := drawEndpoint(t, i)
				delete(e.Labels, labelIngress)
				delete(e.Labels, labelEgress)
				e.Shared = nil
				after.Endpoints[i] = &e
			}
		}
		after.Apart = before.Apart
		want := compile(after, block)
		w.Apart = want.Apart // nobody is the first that a policy selects by labels of its image
		before = compile(w, block)
		if want.Generation != before.Generation {
			t.Fatal("another generation")
		}
		both := slices.Concat(w.Endpoints, after.Endpoints)
		var packets []Packet
		for range 20 {
			ipv6 := rapid.Bool().Draw(t, "ipv6")
			src, dst := somewhere(t, "src", both, ipv6), somewhere(t, "dst", both, ipv6)
			s := drawConn(t)
			if dst.host && sometimes(t, "published", 2) {
				s = Service{Proto: TCP, Port: uint16(8000 + rapid.IntRange(0, 5).Draw(t, "port"))}
			}
			if p, ok := s.packet(Packet{Path: pathOf(src, dst), Src: src.addr, Dst: dst.addr}, ipv6); ok {
				packets = append(packets, p)
			}
		}
		var have [2]map[string][]Member
		for i, f := range before.Families() {
			have[i] = map[string][]Member{}
			for _, s := range f.Sets {
				have[i][s.Name] = s.Members
			}
		}
		was, is := NewJudge(before), NewJudge(want)
		for i, f := range want.Families() {
			for _, change := range f.Changes(have[i]) {
				for _, m := range change.Members {
					steps++
					set := slices.Clone(have[i][change.Set])
					if change.Delete {
						set = slices.DeleteFunc(set, func(o Member) bool { return o == m })
					} else {
						set = append(set, m)
					}
					have[i][change.Set] = set
					now := NewJudge(withMembers(want, have))
					for _, p := range packets {
						if now.Walk(p).Allowed && !was.Walk(p).Allowed && !is.Walk(p).Allowed {
							t.Fatalf("%+v passes after %+v %v", p, change, m)
						}
					}
				}
			}
			for _, s := range f.Sets {
				add, del := DiffMembers(have[i][s.Name], s.Members)
				if len(add)+len(del) > 0 {
					t.Fatalf("%s has %v", s.Name, have[i][s.Name])
				}
			}
		}
	})
	if steps == 0 {
		t.Error("nothing changed")
	}
}

// A container goes and another comes on both ends of a rule: the old one never
// reaches the new one.
func TestChangesOrder(t *testing.T) {
	member := func(a string) []Member { return []Member{single(netip.MustParseAddr(a))} }
	f := Family{Sets: []Set{
		{Name: "from", Members: member("10.0.0.3")},
		{Name: "closed", Closes: true, Members: member("10.0.0.5")},
		{Name: "to", Members: member("10.0.0.5")},
	}}
	got := f.Changes(map[string][]Member{"from": member("10.0.0.2"), "to": member("10.0.0.4"), "closed": member("10.0.0.4")})
	want := []Change{
		{Set: "closed", Members: member("10.0.0.5")},
		{Set: "from", Delete: true, Members: member("10.0.0.2")},
		{Set: "to", Delete: true, Members: member("10.0.0.4")},
		{Set: "from", Members: member("10.0.0.3")},
		{Set: "to", Members: member("10.0.0.5")},
		{Set: "closed", Delete: true, Members: member("10.0.0.4")},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Member) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if again := f.Changes(map[string][]Member{"from": member("10.0.0.3"), "to": member("10.0.0.5"), "closed": member("10.0.0.5")}); len(again) > 0 {
		t.Errorf("twice is not once: %v", again)
	}
}
