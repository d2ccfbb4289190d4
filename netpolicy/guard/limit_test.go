package guard

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// opens has a container send a datagram to the host from each of some ports.
func (b *box) opens(to netip.Addr, first, n int) {
	b.host.t.Helper()
	from := set4or6(to, b.ip4.String(), b.ip6.String())
	b.inside(func() {
		for port := first; port < first+n; port++ {
			family, at, dest := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: port}), unix.Sockaddr(&unix.SockaddrInet4{Port: 9, Addr: [4]byte(to.AsSlice()[:4])})
			if to.Is6() {
				family, at, dest = unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: b.ip6.As16()}, &unix.SockaddrInet6{Port: 9, Addr: to.As16()}
			}
			s, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			b.host.check(err)
			if _, err := opened(func() (int, error) { return s, unix.Bind(s, at) }); err != nil {
				b.host.t.Fatalf("bind %s port %d: %v", from, port, err)
			}
			if err := unix.Sendto(s, []byte("x"), 0, dest); err != nil {
				b.host.t.Fatalf("send from %s: %v", from, err)
			}
			_ = unix.Close(s)
		}
	})
}

// tracked counts the host's entries of connections from an address.
func tracked(t *testing.T, from netip.Addr) int {
	t.Helper()
	out, err := exec.Command("conntrack", "-L", "-f", set4or6(from, "ipv4", "ipv6"), "-s", from.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(out, []byte("\n"))
}

// becomes waits for a number: the last datagrams may still be on their way. What it
// is in the end must hold for good.
func (h *host) becomes(t *testing.T, what string, want int, number func() int) {
	t.Helper()
	for deadline := time.Now().Add(arrives); number() != want; {
		if time.Now().After(deadline) {
			t.Errorf("%s: %d, not %d", what, number(), want)
			return
		}
	}
}

func (h *host) limited(limits ...uint32) Wish {
	w := h.wish()
	for i, n := range limits {
		w.edit(i).Connections = n
	}
	return w
}

func (h *host) refused(d *Driver, b *box) uint64 {
	h.t.Helper()
	v, err := d.Violations()
	h.check(err)
	return v[b.port].Connections
}

func TestConnections(t *testing.T) {
	h := newHost(t, 2)
	d := h.driver()
	a, b := h.boxes[0], h.boxes[1]
	forget := func() { run(t, "conntrack", "-F") }

	entries := func(from netip.Addr) func() int { return func() int { return tracked(t, from) } }
	refused := func(from *box) func() int { return func() int { return int(h.refused(d, from)) } }
	h.apply(d, h.limited(1<<20, 1<<20))
	a.opens(gateway4, 10000, 1500)
	h.becomes(t, "entries with the limit far away", 1500, entries(a.ip4))
	forget()
	h.run(t, "stop_at_the_limit", func(t *testing.T) {
		h.apply(d, h.limited(500, 1000))
		a.opens(gateway4, 10000, 1500)
		h.becomes(t, "refused beyond 500", 1000, refused(a))
		h.becomes(t, "entries up to 500", 500, entries(a.ip4))
		b.opens(gateway4, 10000, 900)
		h.becomes(t, "entries of its neighbour", 900, entries(b.ip4))
		h.becomes(t, "refused to its neighbour", 0, refused(b))
	})
	h.run(t, "one_that_is_open_stays_open", func(t *testing.T) {
		a.opens(gateway4, 10000, 500) // the same once more
		a.opens(gateway4, 9000, 1)    // and a new one
		h.becomes(t, "refused", 1001, refused(a))
	})
	h.run(t, "IPv6_too", func(t *testing.T) {
		a.opens(gateway6, 10000, 600)
		h.becomes(t, "refused, with those over IPv4", 1101, refused(a))
		h.becomes(t, "entries over IPv6", 500, entries(a.ip6))
	})
	h.run(t, "counts_stay_when_other_limits_come_and_go_and_chains_are_healed", func(t *testing.T) {
		h.apply(d, h.limited(500, 20000))
		run(t, "nft", "flush", "chain", "inet", "netguard", "max-500")
		r, err := d.Apply(h.limited(500, 20000), Look{})
		h.check(err)
		if len(r.Drift) == 0 {
			t.Error("the change went unnoticed")
		}
		h.apply(d, h.limited(500, 0))
		a.opens(gateway4, 20000, 100)
		h.becomes(t, "refused", 1201, refused(a))
		h.becomes(t, "entries", 500, entries(a.ip4))
	})
	h.run(t, "room_is_given_again", func(t *testing.T) {
		forget()
		h.await("a connection can be opened", func() bool {
			a.opens(gateway4, 30000, 1)
			return tracked(t, a.ip4) > 0
		})
	})
	h.run(t, "a_large_limit_is_nearly_exact", func(t *testing.T) {
		forget()
		h.apply(d, h.limited(4000, 0))
		before := int(h.refused(d, a))
		a.opens(gateway4, 10000, 5000)
		h.await("all were let through or refused", func() bool { return tracked(t, a.ip4)+int(h.refused(d, a))-before == 5000 })
		if n := tracked(t, a.ip4); n > 4000 || n < 3500 {
			t.Errorf("%d entries, the limit is 4000", n)
		}
	})
	h.run(t, "in_monitor_mode_nothing_is_refused", func(t *testing.T) {
		forget()
		w := h.limited(100, 0)
		w.Mode = Monitor
		h.apply(d, w)
		before := h.refused(d, a)
		a.opens(gateway4, 10000, 150)
		h.becomes(t, "entries beyond a limit of 100", 150, entries(a.ip4))
		h.becomes(t, "counted", int(before)+50, refused(a))
	})
	h.run(t, "the_table_goes_with_the_last_limit", func(t *testing.T) {
		h.apply(d, h.limited(0, 0))
		if got := output(t, "nft", "list", "tables"); strings.Contains(got, "inet netguard") {
			t.Error(got)
		}
	})
}

// TestConnectionsDrift has somebody else remove the table, and an element of it.
func TestConnectionsDrift(t *testing.T) {
	h := newHost(t, 2)
	d := h.driver()
	w := h.limited(500, 500)
	h.apply(d, w)
	table := func() string {
		return meters.ReplaceAllString(output(t, "nft", "list", "table", "inet", "netguard"), "$1")
	}
	before := table()
	for _, change := range [][]string{
		{"delete", "table", "inet", "netguard"},
		{"flush", "map", "inet", "netguard", "max4"},
		{"add", "chain", "inet", "netguard", "theirs"},
		{"add", "table", "inet", "netguard", "{ flags dormant; }"},
		{"insert", "rule", "inet", "netguard", "forward", "accept"},
	} {
		h.run(t, strings.Join(change, "_"), func(t *testing.T) {
			run(t, "nft", change...)
			r, err := d.Apply(w, Look{})
			h.check(err)
			if len(r.Drift) == 0 {
				t.Error("the change went unnoticed")
			}
			differ(t, before, table(), "not healed")
		})
	}
	h.run(t, "adopted", func(t *testing.T) {
		d := h.driver()
		r, err := d.Apply(w, Everything)
		h.check(err)
		if r.Changes != 0 {
			t.Errorf("%d changes", r.Changes)
		}
	})
	h.check(d.Cleanup())
	if got := output(t, "nft", "list", "ruleset"); strings.Contains(got, "netguard") {
		t.Error(got)
	}
}

// TestManyLimits has each port want another limit.
func TestManyLimits(t *testing.T) {
	w := Wish{}
	for i := range 200 {
		w.Ports = append(w.Ports, &Port{Index: i + 1, Bridge: 1, MAC: MAC{2, 0, 0, 0, 0, byte(i)}, Guarded: true, Admitted: true,
			IPv4: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Connections: uint32(1000 + i)})
	}
	l := newPlan(w, Features{}, nil).limits()
	var chains []string
	for c := range assemble(limitFamily, limitSets(), l.rules).lines {
		if strings.HasPrefix(c, maxPrefix) {
			chains = append(chains, c)
		}
	}
	slices.Sort(chains)
	if got := fmt.Sprint(chains); got != "[max-1024 max-512]" {
		t.Error(got)
	}
	if len(l.sets[setMax4]) != 200 || len(l.sets[setMax6]) != 200 {
		t.Errorf("%d and %d addresses of 200", len(l.sets[setMax4]), len(l.sets[setMax6]))
	}
}

func TestShares(t *testing.T) {
	for limit, want := range map[uint32][2]uint32{1: {1, 1}, 500: {1, 500}, 1024: {1, 1024}, 1025: {4, 256}, 65536: {256, 256}, MaxConnections: {256, 65536}} {
		if n, each := shares(limit); [2]uint32{n, each} != want || n*each > limit {
			t.Errorf("%d: %d times %d", limit, n, each)
		}
	}
}

func TestParseConnections(t *testing.T) {
	for label, want := range map[string]uint32{"1": 1, "500": 500, "16777216": MaxConnections,
		"": 0, "0": 0, "-1": 0, "+5": 0, "1e3": 0, "16777217": 0, "99999999999": 0, "many": 0, " 5": 0} {
		got, err := ParseConnections(label)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", label, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", label)) {
			t.Errorf("%q is not quoted: %v", label, err)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		operator uint32
		asked    []uint32
		limit    uint32
		above    bool
	}{
		{0, nil, 0, false}, {100, nil, 100, false}, {0, []uint32{5}, 5, false}, {100, []uint32{5}, 5, false},
		{100, []uint32{500}, 100, true}, {100, []uint32{50, 20}, 20, false}, {100, []uint32{500, 20}, 20, true},
	} {
		if limit, above := Within(c.operator, c.asked...); limit != c.limit || above != c.above {
			t.Errorf("%d, %v: %d, %v", c.operator, c.asked, limit, above)
		}
	}
}
