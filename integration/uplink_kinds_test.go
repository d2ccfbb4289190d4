package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/agent/desired"
	. "netguard/integration/harness"
)

// lan is a Docker network on a bridge that somebody else made, with a port of his.
type lan struct {
	network, port string
	guest         *Container
	way           []reach
}

// lans make a network for each kind of port that is no container's. The bridge is there
// first: its age tells nothing of a veth.
func lans(t *testing.T, e *Engine) []lan {
	t.Helper()
	out := e.Name() + "-out"
	// The names of what the script makes: $B the bridge, $P the port, $E what is outside.
	var all []lan
	for i, kind := range []struct{ name, script string }{
		{"veth", "ip link add $P type veth peer name $E netns $OUT; "},
		{"vxlan", "ip link add $P type vxlan id 77 local 198.51.100.1 remote 198.51.100.2 dstport 4790; " +
			"ip -n $OUT link add $E type vxlan id 77 local 198.51.100.2 remote 198.51.100.1 dstport 4790; "},
		{"macvlan", "ip link add u$P type veth peer name $E netns $OUT; ip link set u$P up; ip link add $P link u$P type macvlan mode passthru; "},
		{"stacked", "ip link add o$B type bridge; ip link set o$B up; ip link add u$P type veth peer name $E netns $OUT; ip link set u$P master o$B up; " +
			"ip link add $P type veth peer name p$P; ip link set p$P master o$B up; "},
		{"tap", "ip tuntap add $P mode tap; "},
	} {
		port, at := "up"+fmt.Sprint(i), fmt.Sprintf("198.18.%d", 120+i)
		e.Output("sh", "-ec", strings.NewReplacer("$B", "lan"+fmt.Sprint(i+1), "$P", port, "$E", "eth"+fmt.Sprint(i+1), "$OUT", out).Replace(
			"ip link add $B type bridge; ip link set $B up; "+kind.script+"ip link set $P master $B up; ip addr add "+at+".1/24 dev $B"))
		l := lan{network: kind.name, port: port}
		e.Network(l.network, Subnet(at+".0/24"), BridgeName("lan"+fmt.Sprint(i+1)))
		l.guest = e.Run("on-"+kind.name, On(l.network, at+".130"), Doing("serve", "tcp", ":80"))
		if kind.name != "tap" {
			e.Outside.Output("sh", "-ec", fmt.Sprintf("ip addr add %s.2/24 dev eth%d; ip link set eth%d up", at, i+1, i+1))
			l.way = []reach{{"the host by " + kind.name, e.Netns, "tcp", at + ".2:81"}, {"a container by " + kind.name, l.guest.Inside(), "tcp", at + ".2:81"},
				{"from outside by " + kind.name, e.Outside.Netns, "tcp", l.guest.Addr(l.network, 80)}}
		}
		all = append(all, l)
	}
	return all
}

// left tells whether a status leaves the network alone and names the port.
func (l lan) left(s control.Status) bool {
	ep, ok := Endpoint(s, l.guest, l.network)
	return ok && ep.State == control.Unmanaged && strings.Contains(strings.Join(s.Findings, "\n"), "holds "+l.port+", which is no container's port") &&
		strings.Contains(ep.Reason, "networks.uplinks: ["+l.port+"]")
}

// unknownPort plugs a veth with a name like Docker's into the bridge of a network. Its
// other end is outside, and has an address of the network.
func unknownPort(e *Engine, n *Network, address string) {
	e.Output("ip", "link", "add", "veth00000aa", "type", "veth", "peer", "name", "unknown", "netns", e.Name()+"-out")
	e.Outside.Output("sh", "-ec", "ip addr add "+address+"/24 dev unknown; ip link set unknown up")
	e.Output("ip", "link", "set", "veth00000aa", "master", n.Bridge, "up")
}

// counted has an unknown port and a container speak to each other, and awaits that it is
// counted and shown. In monitor mode what they say arrives, and both ways count; else the
// port's settings keep most of what is for it back before anything counts it.
func counted(t *testing.T, e *Engine, a *Agent, c *Container, address string) {
	t.Helper()
	mode, said, least := a.Status().Mode, "refused", uint64(0)
	if mode == control.ModeMonitor {
		said, least = "would be denied", 1
	}
	outside := e.Outside
	watch, table := watching(t, e, a, "-o", "json"), watching(t, e, a)
	got := func(all []control.Event) map[string]uint64 {
		n := map[string]uint64{}
		for _, e := range all {
			if e.Type == control.EventWithheld && e.Veth == "veth00000aa" && e.Container == "" && (e.Mode == control.ModeMonitor) == (mode == control.ModeMonitor) {
				n[e.Direction] += e.Count
			}
		}
		return n
	}
	// A port that nobody knows is told of when it has been there for desired.Patience.
	for until := time.Now().Add(desired.Patience + arrives); ; {
		if arrived := outside.Connect("tcp", c.Addr("net", 80), "300ms").Answered(); arrived != (mode == control.ModeMonitor) {
			t.Errorf("mode %s: an unknown port reached a container: %v", mode, arrived)
		}
		c.Inside().Connect("tcp", address+":81", "300ms")
		if n := got(eventsOf(t, watch)); n["egress"] > 0 && n["ingress"] >= least {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("mode %s: monitor shows %s", mode, watch.Stdout())
		}
	}
	if line := table.AwaitLine("veth00000aa"); !strings.Contains(line, "(unknown port)") || !strings.Contains(line, said) {
		t.Errorf("mode %s: %s", mode, line)
	}
	if line := a.AwaitLog("a port that is not admitted"); !strings.Contains(line, "veth=veth00000aa ") {
		t.Errorf("mode %s: log: %s", mode, line)
	}
	s := a.AwaitStatus("it is counted", func(s control.Status) bool {
		return len(s.UnknownPorts) == 1 && s.UnknownPorts[0].Withheld.Sent > 0 && s.UnknownPorts[0].Withheld.Received >= least
	})
	if text := a.CLI("status").Stdout; !strings.Contains(text, "port veth00000aa of bridge "+s.UnknownPorts[0].Bridge+": not admitted") {
		t.Errorf("mode %s: %s", mode, text)
	}
}

func portsOf(all []lan) []string {
	var out []string
	for _, l := range all {
		out = append(out, l.port)
	}
	return out
}
