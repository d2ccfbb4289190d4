package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

const allowLabel = "netguard.guard.allow"

// announcing is what keepalived sends when it takes over a virtual address.
func announcing(from attack.MAC, vip netip.Addr) []byte {
	return attack.Ether(attack.Broadcast, from, attack.EtherARP, attack.ARP(attack.Request, from, vip, attack.MAC{}, vip))
}

// admitted runs containers on a network, and waits until they may speak.
func admitted(t *testing.T, e *Engine, a *Agent, network string, options ...[]ContainerOption) []*actor {
	t.Helper()
	var all []*actor
	for i, o := range options {
		c := e.For(t).Run(fmt.Sprintf("%s%d", network, i), append(o, On(network))...)
		a.For(t).AwaitEndpoint(c, network, control.Admitted)
		all = append(all, enter(t, c, network))
	}
	return all
}

func TestGuardLife(t *testing.T) {
	t.Parallel()
	engine := Start(t)
	agent := engine.Agent()
	on := func(t *testing.T) (*Engine, *Agent) { return engine.For(t), agent.For(t) }
	// admitted runs containers and waits until they may speak.
	admitted := func(t *testing.T, network string, options ...[]ContainerOption) []*actor {
		t.Helper()
		return admitted(t, engine, agent, network, options...)
	}

	t.Run("a_label_allows_a_virtual_address", func(t *testing.T) {
		e, a := on(t)
		e.Network("vip", Subnet("198.18.30.0/24"))
		vip, other := netip.MustParseAddr("198.18.30.200"), netip.MustParseAddr("198.18.30.201")
		keeper := []ContainerOption{Label(allowLabel, vip.String())}
		all := admitted(t, "vip", keeper, keeper, nil, nil)
		one, two, without, ask := all[0], all[1], all[2], all[3]
		gratuitous := func(from *actor, about netip.Addr) bool {
			return from.delivers(t, ask, announcing(from.MAC, about))
		}
		serves := func(from *actor) {
			t.Helper()
			from.Inside().Output("ip", "addr", "add", vip.String()+"/32", "dev", from.Interface("vip"))
			if !gratuitous(from, vip) {
				t.Errorf("%s cannot announce its virtual address", from.Name)
			}
			// What asks must look for whoever has it now.
			ask.stale(vip, from.MAC)
			ask.Inside().CanReach("tcp", netip.AddrPortFrom(vip, 80).String())
		}
		for _, c := range []*actor{one, two} {
			c.Inside().Serve("tcp", ":80")
		}
		serves(one)
		// It fails over.
		one.Inside().Output("ip", "addr", "del", vip.String()+"/32", "dev", one.Interface("vip"))
		serves(two)
		if gratuitous(one, other) {
			t.Error("an address that the label does not name passed")
		}
		if gratuitous(without, vip) {
			t.Error("it passed without the label")
		}
		got := violations(t, a, one, two, without, ask)
		if want := []control.Violations{{ARP: 1}, {}, {ARP: 1}, {}}; !cmp.Equal(got, want) {
			t.Errorf("violations %+v, want %+v", got, want)
		}
	})
	t.Run("a_label_takes_no_address_of_the_gateway_or_a_neighbour", func(t *testing.T) {
		e, a := on(t)
		n := e.Network("greedy", Subnet("198.18.31.0/24"))
		first := admitted(t, "greedy", nil)[0]
		gw := gateway(t, e, n, first.Container).IPv4
		for name, label := range map[string]string{"by_prefix": "198.18.31.0/24", "by_name": fmt.Sprintf("198.18.31.99,%s,%s,%s", gw, first.IPv4, hw(first.MAC))} {
			t.Run(name, func(t *testing.T) {
				c := e.For(t).Run(name, On("greedy"), Label(allowLabel, label))
				ep := a.AwaitEndpoint(c, "greedy", control.Admitted)
				if name == "by_prefix" {
					if said := strings.Join(ep.Findings, "\n"); !strings.Contains(said, "198.18.31.0/24 is left out: a prefix needs the operator's permission") {
						t.Errorf("without the operator's word: %q", said)
					}
					a.WriteConfig("guard: {allow: [198.18.31.0/24]}\n")
					defer a.WriteConfig("")
					a.AwaitStatus("the prefix counts", func(s control.Status) bool {
						ep, _ := Endpoint(s, c, "greedy")
						return Whole(ep) && len(ep.Findings) == 0
					})
				}
				greedy := enter(t, c, "greedy")
				for whose, about := range map[string]netip.Addr{"gateway": gw, "neighbour": first.IPv4} {
					if greedy.delivers(t, first, announcing(greedy.MAC, about)) {
						t.Errorf("it took over the address of the %s", whose)
					}
				}
				if greedy.delivers(t, first, announcing(first.MAC, netip.MustParseAddr("198.18.31.99"))) {
					t.Error("it took over a neighbour's MAC")
				}
				if !greedy.delivers(t, first, announcing(greedy.MAC, netip.MustParseAddr("198.18.31.99"))) {
					t.Error("an address that is nobody's did not pass")
				}
				said := strings.Join(ep.Findings, "\n")
				for _, word := range []string{gw.String() + " is the address of the bridge", first.IPv4.String() + " is the address of", hw(first.MAC) + " is the MAC of"} {
					if name == "by_name" && !strings.Contains(said, word) {
						t.Errorf("status does not say %q: %q", word, said)
					}
				}
			})
		}
	})
	t.Run("a_label_opens_nothing_that_a_policy_leaves_closed", func(t *testing.T) {
		e, a := on(t)
		e.Network("office", Subnet("198.18.36.0/24"))
		claimed := netip.MustParseAddr("198.18.36.200")
		all := admitted(t, "office", []ContainerOption{Label(allowLabel, claimed.String())}, nil)
		liar, db := all[0], all[1]
		// What iptables looks at it also cuts to its length: the words are in it.
		passes := func() bool {
			t.Helper()
			says := func(from netip.Addr, words string) []byte {
				return attack.Ether(db.MAC, liar.MAC, attack.EtherIPv4, attack.UDP4(netip.AddrPortFrom(from, 9), netip.AddrPortFrom(db.IPv4, 53), []byte(words)))
			}
			db.port.Drain()
			if err := liar.port.Send(says(claimed, "<claimed>"), says(liar.IPv4, "<own>")); err != nil {
				t.Fatal(err)
			}
			n, err := db.port.Hears([]byte("<claimed>"), []byte("<own>"), deadline())
			if err != nil {
				t.Fatalf("its own address does not pass: %v", err)
			}
			return n > 0
		}
		if !passes() {
			t.Fatal("the address that its label claims does not pass, though no policy is about it")
		}
		a.WritePolicy("office.yaml", "name: office\nselect: {container: "+db.Name+"}\ningress: [{from: [{cidr: 198.18.36.128/25}, {container: "+liar.Name+"}]}]\n")
		defer a.RemovePolicy("office.yaml")
		finding := func(s control.Status) string {
			ep, _ := Endpoint(s, liar.Container, "office")
			return strings.Join(ep.Findings, "\n")
		}
		a.AwaitStatus("status says so", func(s control.Status) bool {
			return s.InSync && strings.Contains(finding(s), "198.18.36.200 is left out: a policy allows a CIDR that has it")
		})
		if passes() {
			t.Error("the label opened db to it")
		}
		a.WriteConfig("guard: {allow: [198.18.36.128/25]}\n")
		defer a.WriteConfig("")
		a.AwaitStatus("the operator permits it", func(s control.Status) bool { return s.InSync && finding(s) == "" })
		if !passes() {
			t.Error("what the operator permits does not pass")
		}
	})
	t.Run("a_label_allows_a_nested_MAC", func(t *testing.T) {
		e, a := on(t)
		e.Network("nested", Subnet("198.18.32.0/24"))
		inner, innerIP := attack.MAC{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("198.18.32.150")
		all := admitted(t, "nested", []ContainerOption{Label(allowLabel, innerIP.String()+","+hw(inner))}, nil, nil)
		outer, without, peer := all[0], all[1], all[2]
		frame := func(to *actor) []byte {
			return attack.Ether(to.MAC, inner, attack.EtherIPv4, attack.UDP4(netip.AddrPortFrom(innerIP, 1), netip.AddrPortFrom(to.IPv4, 2)))
		}
		if without.delivers(t, peer, frame(peer)) {
			t.Error("a MAC passed without a label")
		}
		if !outer.delivers(t, peer, frame(peer)) {
			t.Error("the MAC that the label names did not pass")
		}
		// And the way back.
		if !peer.delivers(t, outer, attack.Ether(inner, peer.MAC, attack.EtherIPv4,
			attack.UDP4(netip.AddrPortFrom(peer.IPv4, 2), netip.AddrPortFrom(innerIP, 1)))) {
			t.Error("the bridge does not know where the nested MAC is")
		}
		if got := violations(t, a, outer, without, peer); !cmp.Equal(got, []control.Violations{{}, {MAC: 1}, {}}) {
			t.Errorf("violations %+v", got)
		}
	})
	t.Run("a_new_MAC_works_within_a_second_and_the_old_one_no_more", func(t *testing.T) {
		e, a := on(t)
		e.Network("moves", Subnet("198.18.33.0/24"))
		all := admitted(t, "moves", nil, nil)
		moving, peer := all[0], all[1]
		peer.Inside().Serve("udp", ":53")
		old, quickest := moving, time.Hour
		for _, address := range []string{"198.18.33.77", "198.18.33.78", "198.18.33.79"} {
			moving.For(t).Disconnect("moves")
			begin := time.Now()
			moving.For(t).Connect("moves", address)
			connected := time.Now()
			moving.Inside().CanReach("udp", peer.Addr("moves", 53))
			took := time.Since(connected)
			t.Logf("connected after %v, answered %v later", connected.Sub(begin), took)
			quickest = min(quickest, took) // a busy machine may take a second for anything
			moving = enter(t, moving.Container, "moves")
			if moving.MAC == old.MAC || moving.IPv4.String() != address {
				t.Fatalf("it has %s and %s again", hw(moving.MAC), moving.IPv4)
			}
			before := violations(t, a, moving)[0]
			if moving.delivers(t, peer, attack.Ether(peer.MAC, old.MAC, attack.EtherIPv4, udp4(moving, peer, ""))) {
				t.Error("a frame from its old MAC arrived")
			}
			if moving.delivers(t, peer, attack.Ether(peer.MAC, moving.MAC, attack.EtherIPv4, udp4(old, peer, ""))) {
				t.Error("a packet from its old address arrived")
			}
			if got, want := violations(t, a, moving)[0], plus(plus(before, attack.OfMAC, 1), attack.OfIP, 1); got != want {
				t.Errorf("violations %+v, want %+v", got, want)
			}
			old = moving
		}
		if quickest > time.Second {
			t.Errorf("it speaks %v after it was connected", quickest)
		}
	})
	t.Run("the_configuration_leaves_a_network_unguarded", func(t *testing.T) {
		e, a := on(t)
		e.Network("lab", Subnet("198.18.34.0/24"))
		all := admitted(t, "lab", nil, nil)
		from, to := all[0], all[1]
		spoofs := func() bool {
			return from.delivers(t, to, attack.Ether(to.MAC, attack.Nobody, attack.EtherIPv4, udp4(from, to, "")))
		}
		settings := func() string { return e.Output("bridge", "-d", "link", "show", "dev", from.Veth("lab")) }
		guarded := settings()
		if spoofs() || !strings.Contains(guarded, "locked on") {
			t.Errorf("it is not guarded before: %s", guarded)
		}
		a.WriteConfig("networks: {unguarded: [la?]}\n")
		a.AwaitStatus("status says so", func(s control.Status) bool {
			ep, _ := Endpoint(s, from.Container, "lab")
			return Whole(ep) && strings.Contains(ep.Reason, "networks.unguarded")
		})
		if open := settings(); !spoofs() || !strings.Contains(open, "locked off") || !strings.Contains(open, "learning on") {
			t.Errorf("it is guarded still: %s", open)
		}
		if r := a.CLI("status", from.Name); !r.OK() {
			t.Errorf("it is as it was configured, but: %s", r)
		}
		a.WriteConfig("")
		a.AwaitStatus("it is guarded again", func(s control.Status) bool {
			ep, _ := Endpoint(s, from.Container, "lab")
			return Whole(ep) && ep.Reason == ""
		})
		if again := settings(); spoofs() || again != guarded {
			t.Errorf("it was\n%s\nand is\n%s", guarded, again)
		}
	})
}
