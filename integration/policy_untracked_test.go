package integration

import (
	"slices"
	"strings"
	"testing"

	"netguard/agent/control"
	"netguard/agent/doctor"
	. "netguard/integration/harness"
)

// TestUntracked has an operator's rules take packets out of the table of connections, one of
// IPv4 and one of IPv6 at a time. Answers of what policies allow are refused then; doctor,
// status and explain name both rules.
func TestUntracked(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6())
	e.Network("net", Subnet("198.18.113.0/24"), Subnet("fd00:113::/64"))
	dns := e.Run("dns", On("net"), Doing("serve", "udp", ":53"))
	client := e.Run("client", On("net"))
	a := e.Agent(Policy("p.yaml", "name: dns\nselect: {container: dns}\ningress: [{from: [{container: client}], ports: [udp/53]}]\n"+
		"---\nname: client\nselect: {container: client}\negress: [{to: [{container: dns}], ports: [udp/53]}]\ningress: []\n"))
	a.AwaitStatus("policies are in force", func(s control.Status) bool {
		d, ok := Endpoint(s, dns, "net")
		return ok && s.InSync && AllAdmitted(s) && len(d.Policy.Ingress) == 1
	})
	nft := func(family, hook, more string) string {
		return "nft add table " + family + " ops; nft add chain " + family + " ops mine; nft add chain " + family + " ops pre '{ type filter hook " + hook + "; }'; " + more
	}
	const undo = "for i in iptables ip6tables-legacy; do $i -t raw -F; $i -t raw -X; done; for f in ip ip6 inet bridge netdev; do nft delete table $f ops 2>/dev/null; done; true"
	for _, c := range []struct{ name, script string }{
		{"raw_by_a_chain_of_its_own_and_legacy", "iptables -t raw -N OPS; iptables -t raw -A OPS -m multiport -p udp --ports 53,5353 -j CT --notrack; iptables -t raw -A PREROUTING -p udp -g OPS; " +
			"ip6tables-legacy -t raw -A PREROUTING -p udp --sport 53 -j CT --notrack"},
		{"nft_ip_by_a_map_and_ip6", nft("ip", "prerouting priority raw", "nft add rule ip ops mine notrack; nft add rule ip ops pre udp sport vmap '{ 53 : jump mine }'") +
			"; " + nft("ip6", "prerouting priority -250", "nft add rule ip6 ops pre udp dport 53 notrack")},
		{"nft_bridge_and_netdev", nft("bridge", "prerouting priority -300", "nft add rule bridge ops pre ether type ip udp sport 53 notrack") +
			"; " + nft("netdev", "ingress device VETH priority 0", "nft add rule netdev ops pre ether type ip6 udp sport 53 notrack")},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, a := e.For(t), a.For(t)
			client := client.For(t)
			to := [2]string{dns.Addr("net", 53), dns.Addr6("net", 53)}
			for _, address := range to {
				client.Inside().CanReach("udp", address) // the control
			}
			defer e.Output("sh", "-c", undo)
			e.Output("sh", "-c", strings.ReplaceAll("exec 2>&1; set -e; "+c.script, "VETH", dns.For(t).Veth("net")))
			for _, address := range to {
				client.Inside().CannotReach("udp", address)
			}
			chains := map[string][]string{"raw": {"raw OPS", "raw PREROUTING"}, "nft_ip": {"table ip ops, chain mine", "table ip6 ops, chain pre"},
				"nft_bridge": {"table bridge ops, chain pre", "table netdev ops, chain pre"}}
			says := func(text string) bool {
				text = strings.Join(strings.Fields(text), " ")
				for begin, all := range chains {
					if strings.HasPrefix(c.name, begin) && !(strings.Contains(text, all[0]) && strings.Contains(text, all[1])) {
						return false
					}
				}
				return true
			}
			report, _ := examine(t, a)
			if !slices.ContainsFunc(report.Checks, func(c doctor.Check) bool {
				return c.Name == "conflict.notrack" && c.Result == doctor.Warn && c.Remedy != "" && says(c.Found)
			}) {
				t.Errorf("doctor does not name both: %+v", report.Checks)
			}
			a.AwaitStatus("both are named", func(s control.Status) bool { return says(strings.Join(s.Findings, "\n")) })
			if r := a.CLI("policy", "explain", "client", "dns", "udp/53"); !says(r.Stdout) {
				t.Errorf("explain does not name both: %s", r)
			}
		})
	}
}
