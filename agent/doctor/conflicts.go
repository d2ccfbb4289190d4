package doctor

import (
	"fmt"
	"slices"
	"strings"

	"netguard/netpolicy/iptables"
)

// program is another program that filters or shapes, and how to recognise it.
type program struct {
	name string // of the check
	// tables are names of tables of nftables, chains prefixes of chains' names,
	// links prefixes of devices' names.
	tables, chains, links []string

	result        Result
	found, remedy string
}

// known are programs by what they put into the kernel.
var known = []program{
	{"conflict.firewalld", []string{"firewalld"}, []string{"INPUT_ZONES", "FORWARD_IN_ZONES", "FORWARD_direct"}, nil, Warn,
		"firewalld has rules here: its reload may empty DOCKER-USER, and netguard puts its rules back within seconds", "reload firewalld only when that may be; docker's zone can stay as it is"},
	{"conflict.ufw_docker", nil, []string{"ufw-docker-"}, nil, Warn,
		"ufw-docker has rules in DOCKER-USER, by addresses that may be old ones", "let netguard's policies do it: ufw-docker uninstall, or take its block out of /etc/ufw/after.rules, then ufw reload"},
	{"conflict.ufw", nil, []string{"ufw-before-input", "ufw-user-input"}, nil, OK,
		"ufw has rules here: they do not hold for published ports, netguard's policies do", ""},
	{"conflict.whalewall", []string{"whalewall"}, []string{"whalewall"}, nil, Warn,
		"whalewall has rules for containers here: it accepts in Docker's chain what icc=false and --internal would refuse", "say it in netguard's labels instead, and end whalewall with its own cleanup (whalewall -clear)"},
	{"conflict.dfw", []string{"dfw"}, []string{"DFWRS_"}, nil, Warn,
		"dfw has rules for containers here: a packet must pass both", "keep one of the two; dfw wants dockerd with iptables=false"},
	{"conflict.kube_router", nil, []string{"KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-"}, []string{"kube-bridge"}, Warn,
		"kube-router filters here: it writes all of iptables' rules back, and may undo a change that came between", "keep Docker with netguard and Kubernetes on different hosts; netguard puts back what is lost within seconds"},
	{"conflict.calico", nil, []string{"cali-"}, []string{"bpfin.cali", "vxlan.calico"}, Warn,
		"Calico filters here, from the top of FORWARD", "see that Calico's policies do not accept what Docker's containers send, or keep the two on different hosts"},
	{"conflict.cilium", nil, []string{"CILIUM_"}, []string{"cilium_host", "cilium_net"}, Warn,
		"Cilium is here: its programs at devices see packets before iptables does", "see that Cilium leaves Docker's bridges alone (devices), or keep the two on different hosts"},
	{"conflict.kubernetes", []string{"kube-proxy"}, []string{"KUBE-SERVICES", "KUBE-FORWARD"}, nil, OK,
		"Kubernetes has rules here: netguard does not touch its pods", ""},
	{"conflict.podman", []string{"netavark"}, []string{"NETAVARK", "CNI-"}, []string{"podman"}, OK,
		"Podman or CNI has networks here: netguard manages Docker's only", ""},
	{"conflict.incus", []string{"incus", "lxd"}, nil, []string{"incusbr", "lxdbr"}, OK,
		"Incus or LXD has networks here: netguard does not touch them", ""},
	{"conflict.libvirt", []string{"libvirt_network"}, []string{"LIBVIRT_"}, []string{"virbr"}, OK,
		"libvirt has networks here: netguard does not touch them", ""},
}

func begins(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// here tells whether a program has something in the kernel, and what.
func (p program) here(f Facts) (string, bool) {
	if c, ok := f.Firewall.chain(func(c iptables.NativeChain) bool {
		return slices.Contains(p.tables, c.Table) || begins(c.Name, p.chains)
	}); ok {
		if slices.Contains(p.tables, c.Table) {
			return fmt.Sprintf("table %s %s", c.Family, c.Table), true
		}
		return "chain " + c.Name, true
	}
	for _, l := range f.Links.Links {
		// A bridge of Docker's may have any name, so its name proves nothing.
		docker := slices.ContainsFunc(f.Docker.Networks, func(n Network) bool { return n.Bridge == l.Name })
		if !docker && begins(l.Name, p.links) {
			return "device " + l.Name, true
		}
	}
	return "", false
}

func aboutConflicts(c *checks, f Facts) {
	before := len(c.list)
	told := func(err string) {
		if err != "" {
			c.skip("conflict.unknown", "%s", err)
		}
	}
	told(f.Firewall.Err)
	told(f.Links.Err)
	told(f.Links.ForeignErr)
	for _, p := range known {
		if what, ok := p.here(f); ok {
			c.add(p.name, p.result, p.remedy, "%s (%s)", p.found, what)
		}
	}
	aboutUser(c, f)
	aboutBridgeTables(c, f)
	aboutQdiscs(c, f)
	aboutUntracked(c, f)
	if len(c.list) == before {
		c.ok("conflict.none", "no other program's rules or qdiscs are in the way")
	}
}

// aboutUser is about what others put into DOCKER-USER.
func aboutUser(c *checks, f Facts) {
	if f.Firewall.rule(filter, "DOCKER-USER", func(r string) bool { return strings.Contains(r, "-j ACCEPT") }) != "" {
		c.warn("conflict.docker_user", "write RETURN in place of ACCEPT", "somebody accepts in DOCKER-USER: icc=false and --internal do not hold for that (netguard's rules come before it)")
	}
	if f.Firewall.rule(filter, "DOCKER-USER", func(r string) bool { return strings.Contains(r, "-j ufw-user-forward") }) != "" {
		c.warn("conflict.ufw_reload", "none is needed; to avoid it, take the line :DOCKER-USER out of /etc/ufw/after.rules", "ufw leads to its rules from DOCKER-USER: ufw reload empties that chain, and netguard puts its own back within seconds")
	}
}

// aboutBridgeTables is about others who filter frames.
func aboutBridgeTables(c *checks, f Facts) {
	var tables []string
	for _, chain := range f.Firewall.Chains {
		if chain.Family == "bridge" && chain.Table != guardTable && chain.Busy && !slices.Contains(tables, chain.Table) {
			tables = append(tables, chain.Table)
		}
	}
	if len(tables) > 0 {
		slices.Sort(tables)
		c.warn("conflict.bridge_tables", "see that they concern other bridges: nft list table bridge NAME",
			"others filter frames of bridges (%s): a frame must pass both", some(tables))
	}
}

// aboutQdiscs is about others who shape.
func aboutQdiscs(c *checks, f Facts) {
	var whose []string
	remedy := "find out who needs it; if nobody does:"
	for i, q := range f.Links.Foreign {
		where, end := "what the container sends cannot be limited", "ingress"
		if q.Ingress {
			where, end = "what the container receives cannot be limited", "root"
		}
		whose = append(whose, fmt.Sprintf("%s on %s (%s): %s", q.Kind, q.Veth, q.Bridge, where))
		if i < 3 {
			remedy += fmt.Sprintf(" tc qdisc del dev %s %s;", q.Veth, end)
		}
	}
	if len(whose) > 0 {
		c.warn("conflict.qdiscs", strings.TrimSuffix(remedy, ";"), "qdiscs that are not netguard's: %s", some(whose))
	}
}
