package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

const filter = "filter"

// guardTable is the guard's table of nftables, in the family bridge; forward the
// chain of iptables that all policies start from.
const (
	guardTable = "netguard"
	forward    = netpolicy.ChainPrefix + "FORWARD"
)

// readFirewall lists iptables' rules with its own programs, and all chains of
// nftables.
func readFirewall(ctx context.Context) Firewall {
	f := Firewall{Programs: iptables.List(ctx)}
	var err error
	if f.Chains, err = iptables.NativeChains(); err == nil {
		f.Untracked, err = iptables.NativeNotrack()
	}
	if err != nil {
		f.Err = fmt.Sprintf("nftables cannot be listed: %v", err)
	}
	if errors.Is(err, unix.EPERM) {
		// Without the capability iptables-nft-save lists nothing, and reports no error.
		for i := range f.Programs {
			f.Programs[i].Err = "rules cannot be listed without CAP_NET_ADMIN"
		}
	}
	return f
}

// docker is the backend with Docker's rules, "" if none has them.
func (f Firewall) docker() iptables.Backend {
	for _, p := range f.Programs {
		if p.Docker(false) {
			return p.Backend
		}
	}
	return ""
}

// docker6 tells whether Docker keeps rules of IPv6 as well.
func (f Firewall) docker6() bool {
	return slices.ContainsFunc(f.Programs, func(p iptables.Listing) bool { return p.Docker(true) })
}

const incompatible = "the filter table holds rules of nft that iptables cannot read"

// unread says why the rules of iptables are not known; "" if they are.
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
	_, found := f.chain(func(c iptables.NativeChain) bool {
		return c.Family == "bridge" && c.Table == guardTable || c.Name == forward
	})
	return found
}

// closed tells whether netguard's rules in the kernel close the ports of containers that no
// agent has admitted.
func (f Firewall) closed() bool {
	return slices.ContainsFunc(f.Chains, func(c iptables.NativeChain) bool {
		return c.Family == "bridge" && c.Table == guardTable && c.Name == guard.UnknownPortChain
	})
}

// chain finds the first chain for which is(chain) is true. It looks at nftables first. Then it
// looks at each iptables program, sorted by the names of tables and chains.
func (f Firewall) chain(is func(iptables.NativeChain) bool) (iptables.NativeChain, bool) {
	all := slices.Clone(f.Chains)
	for _, p := range f.Programs {
		for i, tables := range p.Tables {
			first := len(all)
			for name, table := range tables {
				for chain := range table {
					all = append(all, iptables.NativeChain{Family: []string{"ip", "ip6"}[i], Table: name, Name: chain})
				}
			}
			slices.SortFunc(all[first:], func(a, b iptables.NativeChain) int {
				return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Name, b.Name))
			})
		}
	}
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], true
	}
	return iptables.NativeChain{}, false
}

// rule finds a rule of a chain of iptables, "" if there is none like it.
func (f Firewall) rule(table, chain string, is func(string) bool) string {
	for _, p := range f.Programs {
		for _, tables := range p.Tables {
			if rules := tables[table][chain]; slices.ContainsFunc(rules, is) {
				return rules[slices.IndexFunc(rules, is)]
			}
		}
	}
	return ""
}
