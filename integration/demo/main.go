// Command demo shows netguard's main jobs on real containers: the same transfer
// before and after a label, the same attack before and after the guard, the same
// connection before and after a policy, and what `netguard status` shows. It runs a
// Docker engine in a network namespace of its own, and leaves nothing behind.
package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"netguard/agent/control"
	"netguard/integration/harness"
)

func main() { os.Exit(harness.Program("demo", show)) }

// demo is the demonstration's host.
type demo struct {
	stage
	e *harness.Engine
	a *harness.Agent

	client, plain, web, mallory *harness.Container
}

func show(tb harness.TB) {
	d := &demo{stage: newStage()}
	d.title("netguard: limits, a guard and policies for plain Docker")
	d.say("A Docker engine starts in a network namespace of its own; your own Docker is not touched.")
	d.e = harness.Start(tb)
	d.e.Network("backend")
	for name, c := range map[string]**harness.Container{"client": &d.client, "plain": &d.plain, "mallory": &d.mallory} {
		*c = d.e.Run(name, harness.On("backend"), harness.Doing("serve", "tcp", ":80"))
	}
	d.plainDocker()
	d.limits()
	d.guard()
	d.policy()
	d.failures()
	d.run("netguard status")
	d.print(d.a.CLI("status").Stdout)
	d.say("Everything of this demo is removed now.")
}

func (d *demo) plainDocker() {
	d.scene("1. Plain Docker: a container takes what it can get")
	d.run("docker run --network backend --name plain …")
	d.bar("receives", received(d.client, d.plain), 0)
	d.bar("sends", received(d.plain, d.client), 0)
	d.say("… and a neighbour, mallory, takes over client's address with one forged ARP packet:")
	d.poison()
}

func (d *demo) limits() {
	d.scene("2. With netguard: a container with two labels")
	d.a = d.e.Agent()
	d.run("netguard agent")
	d.web = d.e.Run("web", harness.On("backend"), harness.Doing("serve", "tcp", ":80"),
		harness.Label("netguard.ingress.rate", "50mbit"), harness.Label("netguard.egress.rate", "10mbit"))
	d.run("docker run --network backend --name web --label netguard.ingress.rate=50mbit --label netguard.egress.rate=10mbit …")
	d.a.AwaitEndpoint(d.web, "backend", control.Admitted)
	d.bar("receives", received(d.client, d.web), 50e6)
	d.bar("sends", received(d.web, d.client), 10e6)

	d.say("While a container sends flat out at 10 Mbit/s, a small packet goes to its neighbour and back:")
	root := "tc qdisc %[2]s dev %[1]s root handle 1: htb default 1"
	veth := d.plain.Veth("backend")
	d.e.Output("sh", "-c", fmt.Sprintf(root+" && tc class add dev %[1]s parent 1: classid 1:1 htb rate 10mbit", veth, "add"))
	d.trips("an HTB class by hand", loaded(d.client, d.plain))
	d.e.Output("tc", "qdisc", "del", "dev", veth, "root")
	d.trips("netguard", loaded(d.web, d.client))
}

func (d *demo) guard() {
	d.scene("3. A container is what Docker says it is")
	d.say("mallory tries again:")
	d.poison()
	d.a.AwaitStatus("mallory is counted", func(s control.Status) bool {
		ep, _ := harness.Endpoint(s, d.mallory, "backend")
		return ep.Violations.ARP > 0
	})
	d.run("netguard status mallory")
	d.print(d.a.CLI("status", "mallory").Stdout)
}

// poison lets mallory claim client's address, and prints which MAC plain now uses for it.
func (d *demo) poison() {
	victim, address := d.plain.Inside(), d.client.IP("backend").String()
	victim.CanReach("tcp", d.client.Addr("backend", 80)) // it knows the neighbour
	before := neighbour(victim, address)
	mine, target := mac(d.mallory), mac(d.plain)
	claim := append(append(append([]byte{}, target...), mine...), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2) // an ARP reply
	claim = append(append(claim, mine...), d.client.IP("backend").AsSlice()...)
	claim = append(append(claim, target...), d.plain.IP("backend").AsSlice()...)
	d.mallory.Inside().SendFrame("eth0", claim, 5)
	after := neighbour(victim, address)
	if after == before {
		d.verdict(true, fmt.Sprintf("plain still reaches client (%s) at %s", address, after))
	} else {
		d.verdict(false, fmt.Sprintf("plain reached client (%s) at %s, and now sends what is for it to mallory, at %s", address, before, after))
	}
	victim.Output("ip", "neigh", "flush", "dev", "eth0")
}

func neighbour(n harness.Netns, address string) string {
	fields := strings.Fields(n.Output("ip", "neigh", "show", address))
	for i, f := range fields {
		if f == "lladdr" && i+1 < len(fields) {
			return fields[i+1]
		}
	}
	return "nobody"
}

func mac(c *harness.Container) []byte {
	var m [6]byte
	fmt.Sscanf(c.MAC("backend"), "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5])
	return m[:]
}

func (d *demo) policy() {
	d.scene("4. Who may talk to whom")
	d.say("Without a policy everybody reaches web:")
	d.reach()
	const policy = "name: web\nselect: {container: web}\ningress:\n  - from: [{container: client}]\n    ports: [tcp/80]\n"
	d.run("cat /etc/netguard/policies/web.yaml")
	d.print(policy)
	d.a.WritePolicy("web.yaml", policy)
	d.a.AwaitStatus("web is isolated", func(s control.Status) bool {
		ep, _ := harness.Endpoint(s, d.web, "backend")
		return len(ep.Policy.Ingress) == 1
	})
	d.reach()
	d.run("netguard policy explain mallory web tcp/80")
	d.print(d.a.CLI("policy", "explain", "mallory", "web", "tcp/80").Stdout)
}

func (d *demo) reach() {
	for _, c := range []*harness.Container{d.client, d.mallory} {
		r := c.Inside().Connect("tcp", d.web.Addr("backend", 80), "500ms")
		d.verdict(r.Answered() == (c == d.client), fmt.Sprintf("%-8s to web, tcp/80: %s", c.Name, r.Result))
	}
}

func (d *demo) failures() {
	d.scene("5. The agent is killed, and what was enforced stays")
	d.a.Kill()
	d.run("kill -9 $(pidof netguard)")
	d.bar("sends", received(d.web, d.client), 10e6)
	d.reach()
	d.a.Start()
	d.say("The agent starts again and adopts what it finds; no packet is lost for it.")

	d.scene("6. A wrong label is not an open door")
	odd := d.e.Run("typo", harness.On("backend"), harness.Label("netguard.egress.rate", "10mbps"))
	d.run("docker run --network backend --name typo --label netguard.egress.rate=10mbps …")
	d.a.AwaitEndpoint(odd, "backend", control.Quarantined)
}

// received is what one container gets from another, in bits a second on the wire.
func received(from, to *harness.Container) float64 {
	return harness.Goodput{From: from.Inside(), To: to.Inside(), Address: to.IP("backend"), Seconds: 3, Omit: 1}.Measure().WireBitsPerSecond()
}

// loaded is how long small packets take while a TCP flow fills the same way.
func loaded(from, to *harness.Container) harness.Times {
	load := harness.Goodput{From: from.Inside(), To: to.Inside(), Address: to.IP("backend"), Seconds: 5}.Start()
	defer load.Wait()
	at := netip.AddrPortFrom(to.IP("backend"), 7).String()
	echo := to.Inside().Serve("udp", at)
	defer echo.Kill()
	return from.Inside().RoundTrips(at, 150, 20*time.Millisecond)
}
