package doctor

import (
	"cmp"
	"fmt"
	"strings"

	"netguard/agent/control"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

func aboutShaper(c *checks, f Facts) {
	const name = "shaper.limits"
	const remedy = "modprobe ifb sch_htb sch_ingress cls_bpf act_mirred sch_fq_codel; where one is not found, install the distribution's extra kernel modules (linux-modules-extra, kernel-modules-extra)"
	s := f.Shaper
	leaf, missing := s.Leaf, s.Missing
	switch {
	case s.Untried != "" && f.Agent.Err == "" && f.Agent.Status.Shaper.Leaf != "":
		leaf, missing = f.Agent.Status.Shaper.Leaf, f.Agent.Status.Shaper.Missing
	case s.Untried != "":
		c.skip(name, "%s", s.Untried)
		return
	case s.Err != "":
		var lacks []string
		for _, part := range []struct {
			there bool
			name  string
		}{{s.HTB, "HTB"}, {s.IFB, "IFB"}, {s.Ingress, "the ingress qdisc"}} {
			if !part.there {
				lacks = append(lacks, part.name)
			}
		}
		if len(lacks) == 0 {
			lacks = []string{"cls_bpf, mirred, or a queue"} // what is left
		}
		c.fail(name, remedy, "the kernel lacks %s: bandwidth cannot be limited (%s)", strings.Join(lacks, ", "), s.Err)
		return
	}
	text := "HTB, IFB, ingress, cls_bpf; queues are " + leaf
	if len(missing) > 0 {
		text += " (the kernel lacks " + strings.Join(missing, ", ") + ")"
	}
	c.ok(name, "%s", text)
}

// tier names how much of the guard there is, and says how bad that is.
func tier(g guard.Features) (name string, result Result) {
	switch name = g.Tier(); name {
	case guard.TierFull:
		return name, OK
	case guard.TierPorts, guard.TierNone:
		return name, Fail
	}
	return name, Warn
}

func aboutGuard(c *checks, f Facts) {
	const name = "guard.tier"
	const remedy = "use a newer kernel, or one with what is named; 5.16 with CONFIG_NF_TABLES_BRIDGE has all"
	switch {
	case f.Guard.Err != "":
		c.fail(name, "modprobe bridge veth nf_tables; "+remedy, "ports cannot be guarded: %s", f.Guard.Err)
	case f.Guard.Untried != "" && f.Agent.Err != "":
		c.skip(name, "%s", f.Guard.Untried)
	case f.Guard.Untried != "":
		if missing := f.Agent.Status.Guard.Missing; len(missing) > 0 {
			c.warn(name, remedy, "%s, says the agent: the kernel lacks %s", f.Agent.Status.Guard.Tier, strings.Join(missing, "; "))
			return
		}
		c.ok(name, "full, says the agent")
	default:
		word, result := tier(f.Guard.Features)
		if missing := f.Guard.Features.Missing; len(missing) > 0 {
			word += ": the kernel lacks " + strings.Join(missing, "; ")
		} else {
			word += ": locked ports, sticky entries, filter, prefixes"
		}
		if result == OK {
			c.ok(name, "%s", word)
		} else {
			c.add(name, result, remedy, "%s", word)
		}
	}
}

// aboutChecksum is about packets that the kernel writes into after they were judged.
func aboutChecksum(c *checks, f Facts) {
	const name = "guard.checksum"
	const remedy = "use Linux 6.6 or newer with CONFIG_DEBUG_INFO_BTF, and give the agent CAP_BPF and CAP_PERFMON, as its unit does"
	const fine = "a program at each port refuses packets that the kernel would write into after they were judged"
	const less = "a packet can change after policies have judged it, for no program can be at the ports (%s)"
	warn := func(why, then string) { c.warn(name, remedy, less+"; "+then, why) }
	const refused = "fragments, the worst of it, are refused"
	agent := f.Agent.Status.Guard
	switch {
	case f.Agent.Err == "" && agent.Checksum == control.ByProgram:
		c.ok(name, "%s, says the agent", fine)
	case f.Agent.Err == "" && agent.Checksum == control.ByFragments:
		warn(agent.ChecksumMissing, refused+", says the agent")
	case f.Agent.Err == "" && agent.Checksum == control.ByNothing:
		warn(agent.ChecksumMissing, "fragments pass as well (guard.fragments), or no policy is about a container yet, says the agent")
	case f.Guard.Err != "" || f.Guard.Untried != "":
		c.skip(name, "%s", cmp.Or(f.Guard.Untried, f.Guard.Err))
	case f.Guard.Features.Checksum:
		c.ok(name, "%s", fine)
	default:
		warn(f.Guard.Features.NoChecksum, refused+" as soon as policies are about a container (guard.fragments)")
	}
}

func aboutPolicy(c *checks, f Facts) {
	aboutIptables(c, f)
	aboutRules(c, f)

	const bridges = "policy.bridges"
	switch {
	case len(f.Host.BridgeFilter) == 0:
		c.warn(bridges, "put net.bridge.bridge-nf-call-iptables=0 and net.bridge.bridge-nf-call-ip6tables=0 into /etc/sysctl.d, so that other bridges stay as they are, then modprobe br_netfilter, and name it in /etc/modules-load.d",
			"br_netfilter is not loaded: policies hold between networks and with the outside, not between two containers of one network")
	case f.Host.BridgeFilter[0] == "0":
		c.ok(bridges, "br_netfilter is loaded; the host's switch (bridge-nf-call-iptables) is off, netguard switches it on for single bridges")
	default:
		c.ok(bridges, "br_netfilter is loaded; the host's switch (bridge-nf-call-iptables) is on: iptables sees the frames of every bridge of this host, netguard needs just those with policies")
	}

	const table = "policy.conntrack"
	const larger = "raise net.netfilter.nf_conntrack_max (sysctl); conntrack -L shows who has so many"
	n, most := f.Host.Connections, f.Host.MaxConnections
	percent := 0
	if most > 0 {
		percent = int(int64(n) * 100 / int64(most))
	}
	switch {
	case most == 0:
		c.fail(table, "modprobe nf_conntrack", "the kernel has no table of connections, so that replies cannot be told from new ones")
	case percent >= 95:
		c.fail(table, larger, "the table of connections is full to %d %% (%d of %d): the kernel drops new ones", percent, n, most)
	case percent >= 75:
		c.warn(table, larger, "the table of connections is full to %d %% (%d of %d)", percent, n, most)
	default:
		c.ok(table, "%d of %d connections", n, most)
	}
}

func aboutIptables(c *checks, f Facts) {
	const name, both = "policy.iptables", "policy.backends"
	if len(f.Firewall.Programs) == 0 {
		c.fail(name, "install iptables (apt install iptables, dnf install iptables-nft)", "iptables is not installed, or does not run")
		return
	}
	first, why := f.Firewall.Programs[0], f.Firewall.unread()
	switch backend := f.Firewall.docker(); {
	case f.Policy.OpenErr != "":
		c.fail(name, "install iptables with ip6tables, -save and -restore of one kind, and see that they run as root", "iptables cannot be used: %s", f.Policy.OpenErr)
	case why == incompatible:
		c.fail(name, "move rules that nft wrote to a table of their own; nft list table ip filter shows them", "%s", why)
	case why != "":
		c.fail(name, "run this as root", "%s", why)
	case backend == "":
		c.ok(name, "%s", first.Version)
	case backend != first.Backend:
		c.ok(name, "%s; Docker's rules are in the other backend, %s, and so are netguard's", first.Version, backend)
	default:
		c.ok(name, "%s, which Docker uses", first.Version)
	}
	if why != "" {
		c.skip(both, "%s", why)
		return
	}
	var used []string
	for _, p := range f.Firewall.Programs {
		if p.Used() {
			used = append(used, string(p.Backend))
		}
	}
	switch len(used) {
	case 0:
		c.ok(both, "neither backend holds rules")
	case 1:
		c.ok(both, "rules are in %s only", used[0])
	default:
		c.warn(both, "keep one: update-alternatives --config iptables (and ip6tables), restart what wrote the others' rules, and flush the backend that is left (iptables-legacy -F, or iptables-nft -F)",
			"both backends of iptables hold rules (%s): a packet must pass both, and each program shows just its own", strings.Join(used, ", "))
	}
}

func aboutRules(c *checks, f Facts) {
	const sets, rules = "policy.sets", "policy.rules"
	const modules = "modprobe ip_set ip_set_hash_ip ip_set_hash_net ip_set_hash_netport ip_set_hash_ipportip ip_set_hash_netiface xt_set"
	if f.Policy.Untried != "" {
		c.skip(rules, "%s", f.Policy.Untried)
		return
	}
	if lacks := f.Policy.Sets; len(lacks) > 0 {
		c.fail(sets, modules, "the kernel lacks types of sets: %s", strings.Join(lacks, "; "))
	} else {
		c.ok(sets, "ipset has %s", strings.Join(iptables.SetTypes(), " "))
	}
	switch {
	case f.Policy.OpenErr != "":
		c.skip(rules, "without iptables no rule can be tried")
	case f.Policy.RulesErr != "":
		c.fail(rules, fmt.Sprintf("see what is named; %s xt_conntrack xt_multiport nf_conntrack", modules), "rules of policies cannot be written: %s", f.Policy.RulesErr)
	case f.Policy.CutErr != "":
		c.fail(rules, "modprobe nf_conntrack_netlink", "connections that policies no longer allow cannot be cut: %s", f.Policy.CutErr)
	default:
		c.ok(rules, "rules of every kind were written and read back")
	}
}
