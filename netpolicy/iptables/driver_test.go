package iptables

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"netguard/internal/asroot"
	"netguard/netpolicy"
)

// namespace gives the test a network namespace of its own, in which it runs beside
// others. The thread is thrown away with it when the test ends.
func namespace(t testing.TB) {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	alone(t)
}

// alone is namespace for a test that no other may run beside.
func alone(t testing.TB) {
	t.Helper()
	asroot.Only(t)
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { ns.Close() })
}

// run runs a program in the test's namespace.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var fault bytes.Buffer
	if strings.HasSuffix(name, "tables-legacy") {
		args = append([]string{"-w"}, args...) // its lock is that of the whole machine
	}
	cmd := exec.Command(name, args...)
	cmd.Stderr = &fault
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, fault.String())
	}
	return string(out)
}

// docker puts into the namespace what an engine of that backend would: some of
// its rules, and some of other people.
func docker(t *testing.T, kind Backend) {
	t.Helper()
	suffix := map[Backend]string{NFT: "-nft", Legacy: "-legacy"}[kind]
	for _, cmd := range []string{"iptables" + suffix, "ip6tables" + suffix} {
		run(t, cmd, "-N", "DOCKER-USER")
		run(t, cmd, "-A", "DOCKER-USER", "-j", "RETURN")
		run(t, cmd, "-N", "DOCKER")
		run(t, cmd, "-A", "FORWARD", "-j", "DOCKER-USER")
		run(t, cmd, "-A", "FORWARD", "-o", "br-0123456789ab", "-j", "DOCKER")
		run(t, cmd, "-A", "INPUT", "-p", "tcp", "-m", "tcp", "--dport", "22", "-j", "ACCEPT")
		run(t, cmd, "-A", "INPUT", "-m", "set", "--match-set", map[bool]string{true: "strangers6", false: "strangers"}[strings.HasPrefix(cmd, "ip6")], "src", "-j", "DROP")
	}
}

// strangers makes sets that are not netguard's.
func strangers(t *testing.T) {
	t.Helper()
	run(t, "ipset", "create", "strangers", "hash:net")
	run(t, "ipset", "add", "strangers", "192.0.2.0/24")
	run(t, "ipset", "create", "strangers6", "hash:ip", "family", "inet6", "comment")
	run(t, "ipset", "add", "strangers6", "2001:db8::1", "comment", "ng4-cut")
}

// all is everything that the kernel holds of iptables and ipset, but for the
// counters and the time that a listing was made.
func all(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, cmd := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		fmt.Fprintf(&b, "== %s\n%s", cmd, run(t, cmd))
	}
	fmt.Fprintf(&b, "== ipset\n%s", run(t, "ipset", "save"))
	// Which of the kernel's own chains are there, only nft tells.
	fmt.Fprintf(&b, "== nft\n%s", run(t, "nft", "list", "ruleset"))
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(b.String(), "")
	text = regexp.MustCompile(`\[[0-9]+:[0-9]+\]`).ReplaceAllString(text, "[]")
	return regexp.MustCompile(` (packets|bytes|timeout) [0-9]+`).ReplaceAllString(text, "")
}

func open(t testing.TB) *Driver {
	t.Helper()
	d, err := Open(context.Background(), Options{Samples: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func apply(t testing.TB, d *Driver, w Wish) Report {
	t.Helper()
	r, err := d.Apply(context.Background(), w)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// inSync fails the test unless a look at the kernel finds nothing to do.
func inSync(t *testing.T, d *Driver) {
	t.Helper()
	drift, err := d.Verify(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(drift.Changes) > 0 {
		t.Errorf("not in sync: %+v", drift)
	}
}

// same fails the test unless two texts are one.
func same(t *testing.T, what, want, have string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(have, "\n")); diff != "" {
		t.Errorf("%s (-want +have):\n%s", what, diff)
	}
}

// forBackends runs a test with each backend, in a namespace where Docker uses it.
func forBackends(t *testing.T, name string, f func(*testing.T)) {
	for _, kind := range []Backend{NFT, Legacy} {
		t.Run(fmt.Sprintf("%s/%s", name, kind), func(t *testing.T) {
			namespace(t)
			strangers(t)
			docker(t, kind)
			f(t)
		})
	}
}

// states are some rule sets to hop among.
func states() []small {
	one := []netpolicy.PortRange{{First: 80, Last: 80}}
	a := small{generation: "a", web: many(2), db: many(4)[4:], ports: []netpolicy.PortRange{{First: 80, Last: 80}, {First: 90, Last: 100}},
		banned: netip.MustParsePrefix("192.0.2.0/24"), published: 81}
	return []small{a,
		{generation: "a", web: many(3), db: many(4)[6:], ports: a.ports, banned: a.banned, published: 82},
		{generation: "a", ports: a.ports, banned: a.banned},
		{generation: "b", web: many(2), db: many(5)[4:], ports: one},
		{generation: "c", closed: many(700), web: many(1), banned: netip.MustParsePrefix("2001:db8::/32")},
		{generation: "d", web: many(1200), db: many(900), ports: one, published: 443},
	}
}

// namespaceLike runs f in another namespace with the same backend's Docker, and
// comes back.
func namespaceLike(t *testing.T, f func()) {
	t.Helper()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	kind := NFT
	if strings.Contains(run(t, "iptables-legacy-save"), "DOCKER-USER") {
		kind = Legacy
	}
	other, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	strangers(t)
	docker(t, kind)
	f()
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
}
