package reconcile

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// TestPacket: the host's connections are judged as the host's, whichever of its addresses
// they come from, and by what they are led to.
func TestPacket(t *testing.T) {
	at := netip.MustParseAddrPort
	local := map[netip.Addr]bool{netip.MustParseAddr("198.51.100.1"): true, netip.MustParseAddr("127.0.0.1"): true}
	for name, c := range map[string]struct {
		src, dst, dialled string
		path              netpolicy.Path
	}{
		"between_containers":                 {"172.18.0.2:40000", "172.18.0.3:80", "172.18.0.3:80", netpolicy.Forward},
		"to_the_host":                        {"172.18.0.2:40000", "198.51.100.1:80", "198.51.100.1:80", netpolicy.Input},
		"by_the_hosts_own_address":           {"198.51.100.1:40000", "172.18.0.3:80", "198.51.100.1:8080", netpolicy.Output},
		"by_loopback":                        {"127.0.0.1:40000", "172.18.0.3:80", "127.0.0.1:8080", netpolicy.Output},
		"by_another_address_of_loopback":     {"127.0.0.9:40000", "172.18.0.3:80", "127.0.0.9:8080", netpolicy.Output},
		"to_the_host_by_loopback_of_ours":    {"172.18.0.2:40000", "127.0.0.9:80", "198.51.100.1:80", netpolicy.Input},
		"of_a_container_by_a_published_port": {"172.18.0.2:40000", "172.18.0.3:80", "198.51.100.1:8080", netpolicy.Forward},
		"of_the_world_by_a_published_port":   {"203.0.113.5:40000", "172.18.0.3:80", "198.51.100.1:8080", netpolicy.Forward},
	} {
		got := packet(iptables.Flow{Src: at(c.src), Dst: at(c.dst), Dialled: at(c.dialled), Proto: netpolicy.TCP}, local)
		if got.Path != c.path || got.Dst != at(c.dst).Addr() || got.Port != at(c.dst).Port() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// judged are connections that ask about each of some flows.
type judged struct {
	flows []iptables.Flow
	kept  []bool // the last answers
	all   bool
	again int // how many lists ask for another one
}

func (j *judged) Vacant() (func(netip.Addr) bool, error) {
	return func(netip.Addr) bool { return true }, nil
}

func (j *judged) Begin(_ context.Context, _ map[netip.Addr]bool, all bool, _ func()) error {
	j.kept, j.all = nil, all
	return nil
}

func (j *judged) Next(keep func(iptables.Flow) bool) (r iptables.CutReport, over bool, err error) {
	for _, f := range j.flows {
		j.kept = append(j.kept, keep(f))
	}
	r.Again = j.again > 0
	j.again--
	return r, true, nil
}

// TestCuttingAsksForAddresses: the host's addresses are read where there is a connection to
// judge. Where they cannot be read, nothing changes, and all connections are judged later.
func TestCuttingAsksForAddresses(t *testing.T) {
	asked, fault := 0, error(nil)
	addresses := func() (map[netip.Addr]bool, error) { asked++; return nil, fault }
	route := func(netip.Addr) (link.Route, error) { return link.Route{}, nil }
	j := &judged{}
	c := newCutting(slog.New(slog.DiscardHandler), j, time.Now)
	run := func() {
		left := &handover{}
		c.begin(t.Context(), left, nil)
		c.next(left, desired.Rule(&netpolicy.Catalog{}, nil), host{addresses: addresses, route: route})
	}
	if run(); asked != 0 {
		t.Error("they are read where there is no connection")
	}
	at := netip.MustParseAddrPort
	f := iptables.Flow{Src: at("172.18.0.2:40000"), Dst: at("172.18.0.3:80"), Dialled: at("172.18.0.3:80"), Proto: netpolicy.TCP}
	noted := f
	noted.Noted = true
	j.flows, fault = []iptables.Flow{f, noted, f}, errInjected
	if run(); asked != 1 || !slices.Equal(j.kept, []bool{true, false, true}) || !c.pace.Failing() {
		t.Errorf("asked %d times; kept %v; failing: %t", asked, j.kept, c.pace.Failing())
	}
	fault = nil
	if run(); asked != 2 || !slices.Equal(j.kept, []bool{true, true, true}) || !j.all || c.pace.Failing() {
		t.Errorf("asked %d times; kept %v; all: %t, failing: %t", asked, j.kept, j.all, c.pace.Failing())
	}
	if run(); j.all {
		t.Error("all are judged again")
	}
}

// TestCuttingGoesOverAll: once in a while all connections are judged without any reason.
func TestCuttingGoesOverAll(t *testing.T) {
	now, j := time.Unix(1e9, 0), &judged{}
	c := newCutting(slog.New(slog.DiscardHandler), j, func() time.Time { return now })
	run := func() bool {
		left := &handover{}
		c.begin(t.Context(), left, nil)
		c.next(left, desired.Rule(&netpolicy.Catalog{}, nil), host{})
		return j.all
	}
	if due := c.due(); !due.IsZero() || !run() || run() {
		t.Errorf("due at %v before any reason; only the first list has all", due)
	}
	if in := c.due().Sub(now); in != wholeEvery {
		t.Errorf("the next one is due in %v, want %v", in, wholeEvery)
	}
	if now = c.due(); !run() || c.due().Sub(now) != wholeEvery {
		t.Error("it has not all, or there is no next one")
	}
}

// TestCuttingAgain: while lists ask for it, another one follows, later and later. The next reason
// begins with a short wait again.
func TestCuttingAgain(t *testing.T) {
	now, j := time.Unix(1e9, 0), &judged{}
	c := newCutting(slog.New(slog.DiscardHandler), j, func() time.Time { return now })
	run := func() time.Duration {
		left := &handover{}
		c.begin(t.Context(), left, nil)
		c.next(left, desired.Rule(&netpolicy.Catalog{}, nil), host{})
		return c.due().Sub(now)
	}
	run()
	for range 2 {
		j.again = 3
		c.reason()
		if in := c.due().Sub(now); in != cutSoon {
			t.Fatalf("due in %v after a reason, want %v", in, cutSoon)
		}
		for _, want := range []time.Duration{cutAgain, 2 * cutAgain, 4 * cutAgain} {
			if in := run(); in != want {
				t.Errorf("the next list is due in %v, want %v", in, want)
			}
			now = c.due()
		}
		if in := run(); in <= cutAgain*8 {
			t.Errorf("a list that asks for no other one is followed by one in %v", in)
		}
	}
}

// TestCuttingAgainAfterAWhole: lists that follow the one of all connections begin with a short wait.
func TestCuttingAgainAfterAWhole(t *testing.T) {
	now, j := time.Unix(1e9, 0), &judged{}
	c := newCutting(slog.New(slog.DiscardHandler), j, func() time.Time { return now })
	for range 2 {
		j.again = 3
		for range 4 {
			left := &handover{}
			c.begin(t.Context(), left, nil)
			c.next(left, desired.Rule(&netpolicy.Catalog{}, nil), host{})
			if in := c.due().Sub(now); j.again == 2 && in != cutAgain {
				t.Errorf("the next list is due in %v, want %v", in, cutAgain)
			}
			now = c.due()
		}
	}
}

// TestCuttingAfterGap: another program deletes rules, and restores the same ones before the agent
// writes any. A connection that began meanwhile is cut.
func TestCuttingAfterGap(t *testing.T) {
	for name, c := range map[string]struct{ check, write bool }{
		"the_check_finds_it":                          {},
		"and_connections_are_listed_before_the_write": {write: true},
		"the_check_fails":                             {check: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			client, server := w.come("front", service(2)), w.come("front", service(1))
			w.policies(1)
			w.run(13 * time.Second)
			p, writes := w.loop.policing, w.writes
			restored := false
			w.rules.DeleteRules()
			w.damaged()
			w.notices.rules = true
			connect := func(port uint16) {
				w.rules.Connect(iptables.Flow{Src: netip.AddrPortFrom(client.addr, port), Dst: netip.AddrPortFrom(server.addr, 80),
					Dialled: netip.AddrPortFrom(server.addr, 80), Proto: netpolicy.TCP})
			}
			connect(40000)
			w.fails = func(at string, _ int) error {
				switch {
				case at != "rules read" || restored:
				case !p.dirty && c.check:
					return errInjected
				case p.dirty && c.write:
					c.write = false
					p.cutting.reason() // a container leaves, for example
					return errInjected
				case p.dirty:
					connect(40001)
					w.rules.RestoreRules()
					restored = true
				}
				return nil
			}
			if w.run(3 * time.Second); !restored || w.writes != writes {
				t.Fatalf("the other program did not restore the rules first: %d writes", w.writes-writes)
			}
			if all := w.rules.Connections(); len(all) > 0 {
				t.Errorf("connections that began in the gap: %v", all)
			}
			w.settle(90 * time.Second)
			w.check()
		})
	}
}
