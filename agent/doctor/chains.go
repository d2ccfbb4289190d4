package doctor

import (
	"maps"
	"slices"
	"strings"

	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

const filter = "filter"

// guardTable is the guard's table of nftables, in the family bridge; forward the
// chain of iptables that all policies start from.
const (
	guardTable = "netguard"
	forward    = netpolicy.ChainPrefix + "FORWARD"
)

// ownChain tells whether a chain of iptables is netguard's.
func ownChain(name string) bool { return strings.HasPrefix(name, netpolicy.ChainPrefix) }

// used tells whether somebody other than netguard has rules there.
func (p Programs) used() bool {
	for _, tables := range p.Tables {
		for _, t := range tables {
			for chain, rules := range t {
				if ownChain(chain) {
					continue
				}
				if slices.ContainsFunc(rules, func(r string) bool { return !strings.Contains(r, "-j "+netpolicy.ChainPrefix) }) {
					return true
				}
			}
		}
	}
	return false
}

// holdsDocker tells whether Docker keeps its rules in these tables.
func holdsDocker(tables map[string]Table) bool {
	for _, chain := range []string{"DOCKER-USER", "DOCKER", "DOCKER-FORWARD"} {
		if _, ok := tables[filter][chain]; ok {
			return true
		}
	}
	return false
}

// docker is the backend with Docker's rules, "" if none has them.
func (f Firewall) docker() string {
	for _, p := range f.Programs {
		if holdsDocker(p.Tables[0]) {
			return p.Kind
		}
	}
	return ""
}

// docker6 tells whether Docker keeps rules of IPv6 as well.
func (f Firewall) docker6() bool {
	return slices.ContainsFunc(f.Programs, func(p Programs) bool { return holdsDocker(p.Tables[1]) })
}

const incompatible = "the filter table holds rules of nft that iptables cannot read"

// unread is why it is not known what iptables holds, "" if it is.
func (f Firewall) unread() string {
	why := "iptables is not installed"
	for _, p := range f.Programs {
		switch {
		case p.Incompatible:
			return incompatible
		case p.Err == "":
			return ""
		}
		why = p.Err
	}
	return why
}

// enforced tells whether rules of netguard's are in the kernel.
func (f Firewall) enforced() bool {
	return f.chain(func(c Chain) bool { return c.Family == "bridge" && c.Table == guardTable || c.Name == forward })
}

// closed tells whether the rules of netguard that are in the kernel hold back
// containers that no agent has admitted.
func (f Firewall) closed() bool {
	return slices.ContainsFunc(f.Chains, func(c Chain) bool {
		return c.Family == "bridge" && c.Table == guardTable && c.Name == guard.StrangerChain
	})
}

// chain tells whether there is such a chain, of nftables or of legacy iptables.
func (f Firewall) chain(is func(Chain) bool) bool {
	if slices.ContainsFunc(f.Chains, is) {
		return true
	}
	for _, p := range f.Programs {
		for i, tables := range p.Tables {
			for _, name := range slices.Sorted(maps.Keys(tables)) {
				for _, chain := range slices.Sorted(maps.Keys(tables[name])) {
					if is(Chain{Family: []string{"ip", "ip6"}[i], Table: name, Name: chain}) {
						return true
					}
				}
			}
		}
	}
	return false
}

// rule tells whether a chain of a table of iptables has such a rule.
func (f Firewall) rule(table, chain string, is func(string) bool) bool {
	for _, p := range f.Programs {
		for _, tables := range p.Tables {
			if slices.ContainsFunc(tables[table][chain], is) {
				return true
			}
		}
	}
	return false
}
