package integration

import (
	"net/netip"
	"strings"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestLinkLocalAddresses: link-local addresses that are not made of the MAC (docker run
// --link-local-ip, stable-privacy) are the container's by its label and the operator's
// word, and policies hold for them.
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
	asks := func(t *testing.T, want map[*Container]bool) {
		t.Helper()
		for c, open := range want {
			for _, at := range names[c] {
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
	asks(t, map[*Container]bool{server: false, shut: false})
	agent.WriteConfig("guard: {allow: [169.254.0.0/16, \"fe80::/64\"]}\n")
	agent.AwaitStatus("they count", whole(false))
	asks(t, map[*Container]bool{server: true, shut: true})
	agent.WritePolicy("shut.yaml", "{name: shut, select: {container: shut}, ingress: []}\n")
	agent.AwaitStatus("the policy is in force", func(s control.Status) bool {
		ep, _ := Endpoint(s, shut, "front")
		return whole(false)(s) && len(ep.Policy.Ingress) == 1
	})
	asks(t, map[*Container]bool{server: true, shut: false})
}
