package integration

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"

	"netguard/agent/control"
	"netguard/agent/link"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// TestLinkLocalAddresses: link-local addresses of IPv4 that Docker did not give are the
// container's by its label and the operator's word, those of IPv6 by themselves, and
// policies hold for all.
func TestLinkLocalAddresses(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6())
	e.Network("front", Subnet("198.18.64.0/24"), Subnet("fd00:64::/64"))
	agent := e.Agent()
	run := func(name, label string, addrs ...string) *Container {
		c := e.Run(name, On("front"), Label(allowLabel, label))
		for _, a := range addrs {
			args := []string{"addr", "add", a, "dev", c.Interface("front")}
			if netip.MustParsePrefix(a).Addr().Is6() {
				args = append(args, "nodad")
			}
			c.Inside().Output("ip", args...)
		}
		c.Inside().Serve("tcp", ":80")
		return c
	}
	server := run("server", "169.254.1.1,fe80::71", "169.254.1.1/16", "fe80::71/64")
	shut := run("shut", "169.254.1.2,fe80::72", "169.254.1.2/16", "fe80::72/64")
	client := run("client", "169.254.2.2,fe80::73", "169.254.2.2/16", "fe80::73/64")
	names := map[*Container][2]string{server: {"169.254.1.1:80", "[fe80::71%eth0]:80"}, shut: {"169.254.1.2:80", "[fe80::72%eth0]:80"}}
	asks := func(t *testing.T, want map[*Container]bool, only ...int) {
		t.Helper()
		for c, open := range want {
			for i, at := range names[c] {
				if len(only) > 0 && i != only[0] {
					continue
				}
				within := "700ms"
				if open {
					within = "3s"
				}
				if r := client.Inside().Connect("tcp", at, within); r.Answered() != open {
					t.Errorf("%s of %s: %s, want open: %v", at, c.Name, r, open)
				}
			}
		}
	}
	whole := func(findings bool) func(control.Status) bool {
		return func(s control.Status) bool {
			n := 0
			for _, ep := range s.Endpoints {
				if Whole(ep) && strings.Contains(strings.Join(ep.Findings, "\n"), "is left out") == findings {
					n++
				}
			}
			return n == 3 && s.InSync
		}
	}
	agent.AwaitStatus("without the operator's word status says what to do", whole(true))
	asks(t, map[*Container]bool{server: false, shut: false}, 0)
	asks(t, map[*Container]bool{server: true, shut: true}, 1)
	agent.WriteConfig("guard: {allow: [169.254.0.0/16, \"fe80::/64\"]}\n")
	agent.AwaitStatus("they count", whole(false))
	// It may still be asking in vain where they are, since before.
	client.Inside().Output("ip", "neigh", "flush", "dev", client.Interface("front"))
	asks(t, map[*Container]bool{server: true, shut: true})
	agent.WritePolicy("shut.yaml", "{name: shut, select: {container: shut}, ingress: []}\n")
	agent.AwaitStatus("the policy is in force", func(s control.Status) bool {
		ep, _ := Endpoint(s, shut, "front")
		return whole(false)(s) && len(ep.Policy.Ingress) == 1
	})
	asks(t, map[*Container]bool{server: true, shut: false})
	agent.WriteConfig("")
	agent.RemovePolicy("shut.yaml")
	for _, c := range []*Container{server, shut, client} {
		c.Remove()
	}
	t.Run("that_Docker_gives", func(t *testing.T) { givenLinkLocals(t, e.For(t), agent.For(t), agent.Restart) })
	t.Run("that_a_container_makes", func(t *testing.T) { madeLinkLocals(t, e.For(t), agent.For(t), agent.Restart) })
}

// reaches tells whether a server's address answers. What is to answer may take a while to.
func reaches(from *Container, at string, open bool) bool {
	within := "700ms"
	if open {
		within = "5s"
	}
	return from.Inside().Connect("tcp", at, within).Answered()
}

// givenLinkLocals: what docker run --link-local-ip gives is the container's without a word
// of anybody else, policies hold for it, and it is nobody else's.
func givenLinkLocals(t *testing.T, e *Engine, agent *Agent, restart func()) {
	e.Network("back", Subnet("198.18.65.0/24"))
	server := e.Run("given", On("front"), LinkLocal("169.254.1.1", "169.254.1.2", "fe80::81"))
	client := e.Run("asks", On("front"), LinkLocal("169.254.2.2"))
	shut := e.Run("shut", On("front"), LinkLocal("169.254.1.3", "fe80::83"), Label("netguard.ingress", "[]"))
	silent := e.Run("silent", On("front"), LinkLocal("169.254.1.4", "fe80::84"), Label("netguard.egress", "[]"))
	cloud := e.Run("cloud", On("front"), LinkLocal("169.254.169.254"))
	for _, c := range []*Container{server, shut, cloud} {
		c.Inside().Serve("tcp", ":80")
	}
	settled := func(what string) {
		agent.AwaitStatus(what, func(s control.Status) bool {
			n := 0
			for _, ep := range s.Endpoints {
				if left := strings.Contains(strings.Join(ep.Findings, " "), "169.254.169.254 (--link-local-ip) is left out"); Whole(ep) && left == (ep.Container == "cloud") {
					n++
				}
			}
			return n == 5 && s.InSync
		})
	}
	settled("all are admitted, and one address is left out")
	all := func(when string) {
		t.Helper()
		for _, c := range []struct {
			from *Container
			at   string
			open bool
		}{
			{client, "169.254.1.1:80", true}, {client, "169.254.1.2:80", true}, {client, "[fe80::81%eth0]:80", true},
			{client, "169.254.1.3:80", false}, {client, "[fe80::83%eth0]:80", false}, {client, "169.254.169.254:80", false},
			{silent, "169.254.1.1:80", false}, {silent, "[fe80::81%eth0]:80", false},
		} {
			if got := reaches(c.from, c.at, c.open); got != c.open {
				t.Errorf("%s: %s answers %s: %v", when, c.at, c.from.Name, got)
			}
		}
	}
	all("at first")
	restart()
	settled("the same after a restart of the agent")
	all("with the next agent")
	server.Restart()
	server.Inside().Serve("tcp", ":80")
	settled("the same after a restart of the container")
	// Docker 28 and later give it a new MAC, of which the client is told.
	if !reaches(client, "169.254.1.1:80", true) {
		t.Error("it is not reached after its restart")
	}
	attach := &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{LinkLocalIPs: []string{"169.254.3.3"}}}
	for _, c := range []*Container{server, client} {
		if err := e.Client.NetworkConnect(t.Context(), "back", c.ID, attach); err != nil {
			t.Fatal(err)
		}
		attach = &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{LinkLocalIPs: []string{"169.254.3.4"}}}
	}
	for c, route := range map[*Container][2]string{client: {"169.254.3.3", "169.254.3.4"}, server: {"169.254.3.4", "169.254.3.3"}} {
		c.Inside().Output("ip", "route", "replace", route[0]+"/32", "dev", c.Interface("back"), "src", route[1])
	}
	if !reaches(client, "169.254.3.3:80", true) {
		t.Error("it is not reached by the network that it was connected to later")
	}
}

// madeLinkLocals: an address of stable-privacy is the container's that made it, and no
// neighbour gets it, whatever it may do in its own namespace.
func madeLinkLocals(t *testing.T, e *Engine, agent *Agent, restart func()) {
	victim := enter(t, e.Run("private", On("front")), "front")
	witness := enter(t, e.Run("witness", On("front")), "front")
	mallory := enter(t, e.Run("mallory", On("front")), "front")
	agent.AwaitStatus("all are admitted", AllAdmitted)
	victim.Inside().Serve("tcp", ":80")
	for _, c := range []*actor{victim, witness} {
		c.Inside().Output("sysctl", "-qw", "net.ipv6.conf.eth0.addr_gen_mode=3")
	}
	private := stablePrivacy(t, victim)
	stablePrivacy(t, witness)
	at := "[" + private.String() + "%eth0]:80"
	if !reaches(witness.Container, at, true) {
		t.Errorf("%s does not answer", at)
	}
	// Mallory may do in its namespace what it likes.
	for _, a := range []string{private.String() + "/64", "fe80::1/64", victim.MAC.LinkLocal().String() + "/64"} {
		mallory.Inside().Output("ip", "addr", "add", a, "dev", "eth0", "nodad")
	}
	agent.AwaitStatus("status says whose it is", func(s control.Status) bool {
		ep, _ := Endpoint(s, mallory.Container, "front")
		return strings.Contains(strings.Join(ep.Findings, " "), private.String()+", which the container says it has, is left out: container private had it first")
	})
	third := victim.party()
	third.IPv6 = private
	scene := attack.Scene{Attacker: mallory.party(), Victim: witness.party(), Third: third, Gateway: attack.Party{MAC: victim.MAC, IPv4: victim.IPv4, IPv6: private}}
	attacks := func(when string) {
		t.Helper()
		for _, a := range attack.All {
			frame := a.Frame(scene)
			if binary.BigEndian.Uint16(frame[12:]) == attack.EtherIPv6 && mallory.delivers(t, witness, frame) {
				t.Errorf("%s: %s arrived", when, a.Name)
			}
		}
		if !reaches(witness.Container, at, true) {
			t.Errorf("%s: %s does not answer", when, at)
		}
	}
	attacks("at once")
	restart()
	agent.AwaitStatus("all are admitted by the next agent", AllAdmitted)
	attacks("with the next agent")
	// No more than some count, of those that it made before.
	for i := range 10 {
		mallory.Inside().Output("ip", "addr", "add", fmt.Sprintf("fe80::bad:%d/64", i), "dev", "eth0", "nodad")
	}
	counts := func() (n int) {
		for i := range 10 {
			from := netip.MustParseAddr(fmt.Sprintf("fe80::bad:%d", i))
			if mallory.delivers(t, witness, attack.Ether(witness.MAC, mallory.MAC, attack.EtherIPv6, attack.UDP6(netip.AddrPortFrom(from, 7), netip.AddrPortFrom(witness.MAC.LinkLocal(), 7), []byte("bad")))) {
				n++
			}
		}
		return n
	}
	for until := deadline(); counts() == 0; {
		if time.Now().After(until) {
			t.Fatal("none of its own addresses counts")
		}
	}
	if n := counts(); n > link.MaxLinkLocals {
		t.Errorf("%d of its addresses count", n)
	}
	// A policy is about such an address as about any other.
	agent.WritePolicy("private.yaml", "{name: private, select: {container: private}, ingress: []}\n")
	defer agent.RemovePolicy("private.yaml")
	agent.AwaitStatus("the policy is in force", func(s control.Status) bool {
		ep, _ := Endpoint(s, victim.Container, "front")
		return s.InSync && Whole(ep) && len(ep.Policy.Ingress) == 1
	})
	if reaches(witness.Container, at, false) {
		t.Errorf("%s answers though a policy closes it", at)
	}
}

// stablePrivacy waits for a container's address of that kind.
func stablePrivacy(t *testing.T, c *actor) netip.Addr {
	t.Helper()
	for until := deadline(); time.Now().Before(until); {
		for line := range strings.Lines(c.Inside().Output("ip", "-6", "addr", "show", "dev", "eth0", "scope", "link")) {
			fields := strings.Fields(line)
			if strings.Contains(line, "stable-privacy") && !strings.Contains(line, "tentative") {
				return netip.MustParsePrefix(fields[1]).Addr()
			}
		}
	}
	t.Fatalf("%s has made no address", c.Name)
	return netip.Addr{}
}
