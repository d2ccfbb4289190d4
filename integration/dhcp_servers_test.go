package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

const dhcpLabel = "netguard.guard.dhcp"

// dnsmasq has a container serve clients of its network, and of one behind a relay.
func dnsmasq(t *testing.T, c *Container, network string, ranges ...string) *Process {
	t.Helper()
	args := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--no-ping", "--log-dhcp", "--log-facility=-", "--user=root",
		"--dhcp-authoritative", "--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"), "--interface=" + c.Interface(network)}
	for _, r := range ranges {
		args = append(args, "--dhcp-range="+r+",1h")
	}
	p := c.Inside().Spawn("dnsmasq", args...)
	p.AwaitLine("DHCP, IP range")
	return p
}

// leases asks for a lease, and tells whether there is one.
func leases(c *Container, tries string) bool {
	return c.Inside().Try("busybox", "udhcpc", "-f", "-i", "eth0", "-n", "-q", "-t", tries, "-T", "1", "-s", "/bin/true").OK()
}

// dhcpServers: a container is a DHCP server of its network by its label and the
// operator's word together, and its answers to who is beyond the host need neither.
func dhcpServers(t *testing.T, e *Engine, a *Agent) {
	const local = "198.18.70.200,198.18.70.250,255.255.255.0"
	e, a = e.For(t), a.For(t)
	client := e.Run("client", On("net"))
	bare := e.Run("bare", On("net"), Publish("67:67/udp"))
	server := e.Run("dhcp", On("net"), Label(dhcpLabel, "server"))
	finding := func(c *Container, text string) func(control.Status) bool {
		return func(s control.Status) bool {
			ep, _ := Endpoint(s, c, "net")
			said := strings.Join(ep.Findings, "\n")
			return s.InSync && Whole(ep) && (text == "" && said == "" || text != "" && strings.Contains(said, text))
		}
	}
	counted := func(t *testing.T, c *Container) uint64 {
		t.Helper()
		ep, _ := Endpoint(a.For(t).Status(), c, "net")
		return ep.Violations.DHCP
	}
	// refused has a client ask in vain, and waits for the answer that was refused.
	refused := func(t *testing.T, c *Container) {
		t.Helper()
		before := counted(t, c)
		p := dnsmasq(t, c.For(t), "net", local)
		defer p.Kill()
		if leases(client.For(t), "1") {
			t.Errorf("%s gave a lease", c.Name)
		}
		a.For(t).AwaitStatus("its answers were counted", func(s control.Status) bool {
			ep, _ := Endpoint(s, c, "net")
			return ep.Violations.DHCP > before
		})
	}
	t.Run("not_by_a_label_alone", func(t *testing.T) {
		a.For(t).AwaitStatus("status says what is missing", finding(server, "guard.dhcp_servers: [net]"))
		refused(t, server)
	})
	a.WriteConfig("guard: {dhcp_servers: [net]}\n")
	a.AwaitStatus("the label counts", finding(server, ""))
	t.Run("nor_by_the_operators_word_alone", func(t *testing.T) { refused(t, bare) })
	t.Run("by_both", func(t *testing.T) {
		before := counted(t, server)
		defer dnsmasq(t, server.For(t), "net", local).Kill()
		if !leases(client.For(t), "20") {
			t.Error("it gave no lease")
		}
		if n := counted(t, server) - before; n > 0 {
			t.Errorf("%d of its frames were refused", n)
		}
	})
	t.Run("no_more_without_the_word", func(t *testing.T) {
		a.For(t).WriteConfig("")
		a.For(t).AwaitStatus("the label does not count", finding(server, "guard.dhcp_servers"))
		refused(t, server)
	})
	t.Run("relayed_and_renewed_past_the_relay", func(t *testing.T) { relayed(t, e, a, bare) })
}

// relayed has a client of another network get a lease by a relay, and renew it at the
// server itself.
func relayed(t *testing.T, e *Engine, a *Agent, server *Container) {
	before, _ := Endpoint(a.For(t).Status(), server, "net")
	walker := e.For(t).Run("walker", Tuned(func(_ *container.Config, h *container.HostConfig) { h.NetworkMode = "none" }))
	out := e.Outside
	out.Output("ip", "link", "add", "cl0", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(walker.PID()))
	out.Output("ip", "addr", "add", "192.0.2.1/24", "dev", "cl0")
	out.Output("ip", "link", "set", "cl0", "up")
	out.Output("sysctl", "-qw", "net.ipv4.ip_forward=1")
	walker.Inside().Output("ip", "link", "set", "eth0", "up")
	// Docker 28 and later refuse what is for a container's own address and comes from outside.
	e.For(t).Output("iptables", "-t", "raw", "-I", "PREROUTING", "-i", Uplink, "-p", "udp", "--dport", "67", "-j", "ACCEPT")
	// What another container sent to that relay is remembered, and takes its questions.
	e.For(t).Output("conntrack", "-F")
	script := filepath.Join(t.TempDir(), "script")
	text := "#!/bin/sh\n[ \"$1\" = bound ] && ip addr replace $ip/24 dev $interface && ip route replace default via 192.0.2.1\nexit 0\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	defer dnsmasq(t, server.For(t), "net", "192.0.2.100,192.0.2.150,255.255.255.0").Kill()
	defer out.Spawn("dhcp-helper", "-n", "-s", HostIPv4.String(), "-i", "cl0", "-r", filepath.Join(t.TempDir(), "pid")).Kill()
	p := walker.Inside().Spawn("busybox", "udhcpc", "-f", "-i", "eth0", "-t", "60", "-T", "1", "-s", script)
	defer p.Kill()
	p.AwaitLine("lease of 192.0.2.")
	p.Signal(syscall.SIGUSR1)
	for until := time.Now().Add(15 * time.Second); strings.Count(p.Stdout()+p.Stderr(), "lease of 192.0.2.") < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it did not renew its lease:\n%s%s", p.Stdout(), p.Stderr())
		}
	}
	after, _ := Endpoint(a.For(t).Status(), server, "net")
	if after.Violations.DHCP != before.Violations.DHCP {
		t.Errorf("frames were refused: %d, before %d", after.Violations.DHCP, before.Violations.DHCP)
	}
}
