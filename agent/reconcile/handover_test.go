package reconcile

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"netguard/agent/config"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/netpolicy/iptables/iptablestest"
)

func TestHandover(t *testing.T) {
	on := func(container, addr string, port int) *desired.Endpoint {
		return &desired.Endpoint{Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: container, Network: "n"},
			Attachment: docker.Attachment{IPv4: netip.MustParseAddr(addr)}, Port: &link.Port{Index: port, Seen: uint64(port)}}}
	}
	free := on("free", "198.18.0.9", 9)
	free.Unmanaged = "excluded"
	later, heir := on("free", "198.18.0.9", 9), on("heir", "198.18.0.9", 10)
	const web, db = "198.18.0.2", "198.18.0.3"
	all := func(*desired.Endpoint) bool { return true }
	only := func(ports ...int) func(*desired.Endpoint) bool {
		return func(d *desired.Endpoint) bool { return slices.Contains(ports, d.Port.Index) }
	}
	for name, c := range map[string]struct {
		open  func(*desired.Endpoint) bool
		looks [][]*desired.Endpoint
		used  string // an address that may have connections
		old   []string
	}{
		"nobody_guarded_before":                 {all, [][]*desired.Endpoint{{on("web", web, 2)}}, web, nil},
		"an_earlier_agent_admitted_it":          {only(2), [][]*desired.Endpoint{{on("web", web, 2)}}, web, nil},
		"it_came_while_no_agent_ran":            {only(2), [][]*desired.Endpoint{{on("web", web, 2), on("db", db, 3)}}, db, []string{db}},
		"it_came_and_its_address_is_vacant":     {only(2), [][]*desired.Endpoint{{on("web", web, 2), on("db", db, 3)}}, web, nil},
		"it_came_and_is_not_managed":            {only(2), [][]*desired.Endpoint{{free}}, web, nil},
		"it_becomes_managed":                    {only(2), [][]*desired.Endpoint{{free}, {later}}, "198.18.0.9", nil},
		"another_has_what_was_not_managed":      {only(2), [][]*desired.Endpoint{{free}, {heir}}, "198.18.0.9", []string{"198.18.0.9"}},
		"new_later":                             {all, [][]*desired.Endpoint{{}, {on("web", web, 2)}}, web, nil},
		"new_later_and_somebody_was_before":     {only(2), [][]*desired.Endpoint{{}, {on("web", web, 3)}}, web, []string{web}},
		"new_later_and_nobody_was":              {only(2), [][]*desired.Endpoint{{}, {on("web", web, 3)}}, db, nil},
		"gone":                                  {all, [][]*desired.Endpoint{{on("web", web, 2)}, {}}, web, []string{web}},
		"another_has_it":                        {all, [][]*desired.Endpoint{{on("web", web, 2)}, {on("db", web, 3)}}, web, []string{web}},
		"the_same_started_again":                {all, [][]*desired.Endpoint{{on("web", web, 2)}, {on("web", web, 3)}}, web, nil},
		"one_of_two_is_gone":                    {all, [][]*desired.Endpoint{{on("web", web, 2), on("db", web, 3)}, {on("db", web, 3)}}, web, []string{web}},
		"the_order_of_two_does_not_matter":      {all, [][]*desired.Endpoint{{on("web", web, 2), on("db", web, 3)}, {on("db", web, 3), on("web", web, 2)}}, web, nil},
		"what_was_gone_stays_so_until_it_ended": {all, [][]*desired.Endpoint{{on("web", web, 2)}, {}, {on("db", web, 3)}}, web, []string{web}},
	} {
		t.Run(name, func(t *testing.T) {
			h := &handover{}
			for _, endpoints := range c.looks {
				h.look(endpoints, c.open, func() func(netip.Addr) bool { return func(a netip.Addr) bool { return a.String() != c.used } })
			}
			var old []string
			for _, a := range slices.SortedFunc(maps.Keys(h.old), netip.Addr.Compare) {
				old = append(old, a.String())
			}
			if !slices.Equal(old, c.old) {
				t.Errorf("old are %v, want %v", old, c.old)
			}
			last := c.looks[len(c.looks)-1]
			if waits := slices.ContainsFunc(last, func(d *desired.Endpoint) bool { return h.waits(d) }); waits != (len(c.old) > 0 && len(last) > 0) || waits != h.urgent(last) {
				t.Errorf("somebody waits: %v, urgent: %v", waits, h.urgent(last))
			}
		})
	}
}

// TestHandOverOfTheUnmanaged: a container that the configuration no longer excludes keeps its own
// connections.
func TestHandOverOfTheUnmanaged(t *testing.T) {
	w := newWorld(t)
	w.cfg = &config.Config{Storm: guard.DefaultStorm, Exclude: []string{"back"}}
	c := w.come("back", nil)
	w.come("front", nil)
	w.run(2 * time.Second)
	w.rules.Connect(iptables.Flow{Src: netip.AddrPortFrom(c.addr, uint16(c.Created)), Dst: netip.MustParseAddrPort("192.0.2.9:443"),
		Dialled: netip.MustParseAddrPort("192.0.2.9:443"), Proto: netpolicy.TCP})
	w.cfg, w.woken = &config.Config{Storm: guard.DefaultStorm}, true
	if w.run(5 * time.Second); len(w.rules.Connections()) != 1 {
		t.Errorf("connections: %v", w.rules.Connections())
	}
	w.settle(30 * time.Second)
	w.check()
}

// TestHandOverBlind: nobody new is admitted while it cannot be told whom an earlier agent admitted.
func TestHandOverBlind(t *testing.T) {
	w := newWorld(t)
	w.come("front", nil)
	w.run(2 * time.Second)
	w.fails = func(at string, _ int) error {
		if at == "guard read" {
			return errInjected
		}
		return nil
	}
	w.start()
	late := w.come("front", nil)
	if w.run(5 * time.Second); w.guard.Sends(late.port.Index) || !w.loop.handover.blind() {
		t.Errorf("it sends: %t; blind: %t", w.guard.Sends(late.port.Index), w.loop.handover.blind())
	}
	if w.settle(30 * time.Second); w.loop.handover.blind() {
		t.Error("it cannot be told for good")
	}
	w.check()
}

// TestHandOverBesideTheLoop: while connections are listed, only who has an address of them waits.
func TestHandOverBesideTheLoop(t *testing.T) {
	w := newWorld(t)
	w.policies(1)
	first := w.come("front", service(0))
	w.run(2 * time.Second)
	w.listTakes = time.Second
	w.leave(first)
	if w.run(200 * time.Millisecond); len(w.lists) != 1 {
		t.Fatalf("%d lists go on", len(w.lists))
	}
	heir, other := w.come("front", service(1)), w.come("front", service(2))
	if w.run(100 * time.Millisecond); heir.addr != first.addr || w.guard.Sends(heir.port.Index) || !w.guard.Sends(other.port.Index) {
		t.Errorf("the next with the address sends: %t; another: %t", w.guard.Sends(heir.port.Index), w.guard.Sends(other.port.Index))
	}
	if w.run(2 * time.Second); !w.guard.Sends(heir.port.Index) || len(w.rules.Connections()) > 0 {
		t.Errorf("after the list it sends: %t; connections: %v", w.guard.Sends(heir.port.Index), w.rules.Connections())
	}
	// One that leaves while a list goes on is not in that list.
	w.leave(other)
	w.run(200 * time.Millisecond)
	w.leave(heir)
	w.run(200 * time.Millisecond)
	heir, other = w.come("front", nil), w.come("front", nil)
	w.listTakes = 10 * time.Second
	if w.run(3 * time.Second); w.guard.Sends(heir.port.Index) || !w.guard.Sends(other.port.Index) {
		t.Errorf("the next with its address sends: %t; with the other's: %t", w.guard.Sends(heir.port.Index), w.guard.Sends(other.port.Index))
	}
	w.settle(30 * time.Second)
	w.check()
}

// TestHandOverFails: who has an address waits until its connections ended.
func TestHandOverFails(t *testing.T) {
	w := newWorld(t)
	first := w.come("front", nil)
	w.run(2 * time.Second)
	w.fails = func(at string, _ int) error {
		if at == "rules list" {
			return errInjected
		}
		return nil
	}
	w.leave(first)
	heir := w.come("front", nil)
	if w.run(10 * time.Second); w.guard.Sends(heir.port.Index) || len(w.rules.Connections()) != 1 {
		t.Errorf("it sends: %t; connections: %v", w.guard.Sends(heir.port.Index), w.rules.Connections())
	}
	w.settle(2 * time.Second)
	w.check()
}

// TestHandOverOfWhatEnds: one connection that cannot be deleted keeps only the address that it is
// about.
func TestHandOverOfWhatEnds(t *testing.T) {
	w := newWorld(t)
	stuck, other := w.come("front", nil), w.come("front", nil)
	w.run(2 * time.Second)
	plain := w.rules.Fail
	w.rules.Fail = func(step iptablestest.Step, about string) error {
		if step == iptablestest.End && netip.MustParseAddrPort(about).Addr() == stuck.addr {
			return errInjected
		}
		return plain(step, about)
	}
	w.leave(stuck)
	w.leave(other)
	heir, free := w.come("front", nil), w.come("front", nil)
	if w.run(3 * time.Second); heir.addr != stuck.addr || w.guard.Sends(heir.port.Index) || !w.guard.Sends(free.port.Index) {
		t.Errorf("the next with its address sends: %t; another: %t", w.guard.Sends(heir.port.Index), w.guard.Sends(free.port.Index))
	}
	// Others that come later wait no longer.
	w.leave(free)
	free = w.come("front", nil)
	if w.run(3 * time.Second); !w.guard.Sends(free.port.Index) || len(w.rules.Connections()) != 1 {
		t.Errorf("a later one sends: %t; connections: %v", w.guard.Sends(free.port.Index), w.rules.Connections())
	}
	w.rules.Fail = plain
	if w.run(3 * time.Second); !w.guard.Sends(heir.port.Index) || len(w.rules.Connections()) > 0 {
		t.Errorf("it sends: %t; connections: %v", w.guard.Sends(heir.port.Index), w.rules.Connections())
	}
	w.settle(30 * time.Second)
	w.check()
}
