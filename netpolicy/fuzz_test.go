package netpolicy

import (
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"netguard/netpolicy/conformance"

	"netguard/internal/strictyaml"
)

// readable fails for a fault without a place, or that writes on a terminal what
// is no text.
func readable(t *testing.T, faults Faults) {
	t.Helper()
	for _, f := range faults {
		if f.Text == "" || f.File == "" || f.Line < 0 || len(f.Error()) > 2000 {
			t.Errorf("fault %q", f.Error())
		}
		if i := strings.IndexFunc(f.Error(), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("fault %q at byte %d", f.Error(), i)
		}
	}
	if len(faults) > strictyaml.MaxFaults+1 {
		t.Errorf("%d faults", len(faults))
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, c := range conformance.Cases() {
		f.Add([]byte(c.Policies))
	}
	endpoints := hostOf(conformance.Cases()[0])
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Load(texts("fuzz.yaml", string(data)))
		readable(t, c.Faults())
		if (len(c.Faults()) > 0) != (len(c.Broken()) > 0 || len(c.Unclear()) > 0) {
			t.Errorf("%d faults, %d broken, unclear %v", len(c.Faults()), len(c.Broken()), c.Unclear())
		}
		if len(c.Faults()) > 0 && len(c.Policies()) > 0 {
			t.Error("policies of a file with faults are in force")
		}
		rs := Compile(World{Endpoints: refs(endpoints), Policies: c.Policies(), Broken: c.Broken()})
		for _, p := range c.Policies() {
			if p.Name() == "" || p.At().Line == 0 {
				t.Errorf("policy %+v", p)
			}
		}
		for _, b := range c.Broken() {
			for i := range endpoints {
				if b.Select.Matches(&endpoints[i]) && len(rs.States[i].Locked) == 0 {
					t.Errorf("%s is not closed by %s", endpoints[i].Name, b)
				}
			}
		}
		// Parted chains say the same.
		whole, parted := NewJudge(rs), NewJudge(compile(World{Endpoints: refs(endpoints), Policies: c.Policies(), Broken: c.Broken()}, 1))
		for i := range endpoints {
			from := endpoints[i].Addrs[0]
			for _, to := range append(slices.Clone(endpoints[(i+1)%len(endpoints)].Addrs), addr("192.0.2.9"), addr("2001:db8::9")) {
				for _, p := range []Packet{{Src: from, Dst: to, Proto: TCP, Port: 80}, {Src: to, Dst: from, Proto: UDP, Port: 53}} {
					if is, want := parted.Walk(p), whole.Walk(p); from.Is6() == to.Is6() && !sameTrace(is, want) {
						t.Errorf("%+v: %+v, want %+v", p, is, want)
					}
				}
			}
		}
	})
}

// Whatever a file is edited into, nothing that it enforced is lost by a fault.
func FuzzReload(f *testing.F) {
	for _, text := range []string{goodDB, goodWeb, badDB, badAll, badTwo, "", "["} {
		f.Add([]byte(badDB), []byte(text))
		f.Add([]byte(text), []byte(badTwo))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		before := Load(texts("a.yaml", string(first)))
		after := before.Reload(texts("a.yaml", string(second)))
		readable(t, after.Faults())
		if len(after.Files[0].Faults) == 0 {
			if len(after.Files[0].Selects) > 0 {
				t.Errorf("a good file closes %v", after.Broken())
			}
			return
		}
		if !within(before.Broken(), after.Broken()) || names(before.Policies()) != names(after.Policies()) {
			t.Errorf("it was %q, it is %q", enforced(before), enforced(after))
		}
	})
}

func FuzzLabel(f *testing.F) {
	for _, text := range []string{
		"[]", "", "null", "[{}]", "- from: [{service: api}]\n  ports: [tcp/5432]\n", "- to: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]",
		"[{from: [{entity: host}]}]", "{}", "a", "[[[", "- &a {}\n- *a", "---\n[]\n---\n[]", "- from: [{project: \"*\", container: \"a*\"}]",
	} {
		f.Add(text, true, "shop")
	}
	f.Fuzz(func(t *testing.T, text string, in bool, project string) {
		d := Egress
		if in {
			d = Ingress
		}
		w := Workload{ID: "1", Name: "fuzz", Project: project, Labels: map[string]string{policyLabels[d]: text}}
		faults := labelFaults(w)
		readable(t, faults)
		rs := Compile(World{Endpoints: refs([]Endpoint{{Workload: w, Network: "n", Managed: true}})})
		s := rs.States[0]
		if (len(faults) > 0) != (len(s.Locked) > 0) {
			t.Errorf("faults %v, locked %v", faults, s.Locked)
		}
		if !s.Isolated(d) {
			t.Error("a label does not close its container")
		}
		for _, fam := range rs.Families() {
			for _, c := range fam.Chains {
				if len(c.Rules) > maxLabelCost+10 {
					t.Errorf("%d rules", len(c.Rules))
				}
			}
		}
	})
}

func FuzzStrays(f *testing.F) {
	for _, name := range []string{"netguard.ingres", "netguard.egress", "com.docker.compose.project", "NETGUARD.ingress", "netgard.egress", "netguard", "netguard."} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		readable(t, Strays(map[string]string{name: ""}))
		if claimed(name) && len(Strays(map[string]string{name: ""})) > 0 {
			t.Errorf("%q is claimed, and a stray", name)
		}
	})
}

func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"shop-db-*", "shop-db-1"}, {"[a-c]?", "b1"}, {"*", ""}, {`\*`, "*"}, {"[", "a"}, {strings.Repeat("*a", 64), strings.Repeat("a", 128)}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if checkGlob(pattern) != nil {
			return
		}
		if _, err := path.Match(pattern, name); err != nil {
			t.Errorf("%q was let pass: %v", pattern, err)
		}
		if !strings.ContainsAny(pattern, `*?[\`) && globMatch(pattern, name) != (pattern == name) {
			t.Errorf("%q does not mean itself", pattern)
		}
		if strings.Trim(pattern, "*") == "" && pattern != "" && !strings.Contains(name, "/") && !globMatch(pattern, name) {
			t.Errorf("%q does not match %q", pattern, name)
		}
	})
}

func FuzzPort(f *testing.F) {
	for _, s := range []string{"tcp/80", "udp/1-65535", "icmp/echo-request", "icmpv6", "80/tcp", "sctp/0", "tcp/00080", "tcp/80-80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parsePort(text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("%d bytes", len(err.Error()))
			}
			return
		}
		p := newPorts([]portSpec{s})
		again, err := parsePort(p.String())
		if err != nil || newPorts([]portSpec{again}).String() != p.String() {
			t.Errorf("%q is written as %q: %v", text, p.String(), err)
		}
		for _, ipv6 := range []bool{false, true} {
			if s.proto.HasPorts() && len(p.matches(ipv6)) != 1 {
				t.Errorf("%q gives %v", text, p.matches(ipv6))
			}
		}
	})
}

func FuzzCIDR(f *testing.F) {
	for _, s := range [][2]string{{"10.0.0.0/8", "10.1.0.0/16"}, {"0.0.0.0/0", "0.0.0.0/1"}, {"::/0", "::1/128"}, {"10.0.0.1/8", ""}, {"::ffff:1.2.3.0/120", ""}, {"fe80::%a/64", ""}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, except string) {
		p, err := parsePrefix(text)
		if err != nil {
			return
		}
		if p.String() == "" || p != p.Masked() || p.Addr().Is4In6() {
			t.Errorf("%q was let pass", text)
		}
		e, err := parsePrefix(except)
		if err != nil || e.Bits() <= p.Bits() || !p.Overlaps(e) {
			return
		}
		c := newCIDR(p, []netip.Prefix{e})
		for _, a := range []netip.Addr{p.Addr(), lastOf(p), e.Addr(), lastOf(e), e.Addr().Prev(), lastOf(e).Next()} {
			if want := p.Contains(a) && !e.Contains(a); c.contains(a) != want {
				t.Errorf("%s has %s: %v", c, a, !want)
			}
		}
	})
}
