package iptables

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"netguard/netpolicy"
)

// Table holds the rules of a table by chain, without the "-A CHAIN".
type Table map[string][]string

// Listing is what one backend of iptables holds.
type Listing struct {
	Backend Backend
	Version string // as its program says it
	Err     string // why it cannot be listed; the kernel may lack this backend
	// Incompatible says that nft wrote what iptables cannot read into the filter table.
	Incompatible bool
	Tables       [2]map[string]Table // of IPv4 and IPv6, by name, as far as they are there
}

// List lists all tables of the installed backends. The backend of the command "iptables" comes
// first. It makes no table. A program that is missing is left out.
func List(ctx context.Context) []Listing {
	var all []Listing
	for _, suffix := range []string{"", "-nft", "-legacy"} {
		path, err := find("iptables" + suffix)
		if err != nil {
			continue
		}
		version, err := exec.CommandContext(ctx, path, "--version").Output()
		if err != nil {
			continue
		}
		l := Listing{Backend: Legacy, Version: strings.TrimSpace(string(version))}
		if strings.Contains(l.Version, string(NFT)) {
			l.Backend = NFT
		}
		if !slices.ContainsFunc(all, func(have Listing) bool { return have.Backend == l.Backend }) {
			for i := range l.Tables {
				l.list(ctx, i, suffix)
			}
			all = append(all, l)
		}
	}
	return all
}

// list lists the tables of one family.
func (l *Listing) list(ctx context.Context, i int, suffix string) {
	if l.Backend == Legacy && len(legacyTables(i)) == 0 {
		return // to ask may load the module
	}
	path, err := find([]string{"iptables", "ip6tables"}[i] + suffix + "-save")
	if err != nil {
		return // a host without IPv6 may have none
	}
	out, err := (&backend{forked: new(int)}).run(ctx, path, nil, "")
	if err != nil {
		l.Err = err.Error()
		return
	}
	tables, err := parseTables(out)
	if err != nil {
		l.Err = fmt.Sprintf("%s: %v", filepath.Base(path), err)
		return
	}
	l.Tables[i] = map[string]Table{}
	for name, t := range tables {
		l.Tables[i][name] = t.rules
		l.Incompatible = l.Incompatible || name == filter && t.incompatible
	}
}

// Used tells whether somebody other than netguard has rules there.
func (l Listing) Used() bool {
	for _, tables := range l.Tables {
		for _, t := range tables {
			for chain, rules := range t {
				if !strings.HasPrefix(chain, netpolicy.ChainPrefix) &&
					slices.ContainsFunc(rules, func(r string) bool { return !strings.Contains(r, "-j "+netpolicy.ChainPrefix) }) {
					return true
				}
			}
		}
	}
	return false
}

// Docker tells whether Docker keeps its rules of IPv4, or of IPv6, there.
func (l Listing) Docker(ipv6 bool) bool {
	t := table{rules: l.Tables[index(ipv6)][filter]}
	return t.docker()
}

// NativeChain is a chain of nftables.
type NativeChain struct {
	Family string // bridge, inet, ip, ip6, arp, netdev
	Table  string
	Name   string
	// Busy says that packets meet the chain, that its family is bridge, and that it may drop
	// them.
	Busy bool
}

// NativeChains lists the chains of nftables, those of iptables' nft backend among them.
func NativeChains() ([]NativeChain, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	list, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	chains := make([]NativeChain, 0, len(list))
	for _, c := range list {
		out := NativeChain{Family: nftFamilies[c.Table.Family], Table: c.Table.Name, Name: c.Name}
		if c.Table.Family == nftables.TableFamilyBridge && c.Hooknum != nil {
			// ebtables leaves chains that are empty and accept.
			rules, err := conn.GetRules(c.Table, c)
			out.Busy = err != nil || len(rules) > 0 || c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		}
		chains = append(chains, out)
	}
	return chains, nil
}

// setUses are the types of sets that policies use, with what they are for.
var setUses = []struct{ typ, use string }{
	{hashIP, "containers"},
	{hashNet, "address ranges"},
	{hashNetPort, "published ports"},
	{hashIPPortIP, "connections that were cut"},
	{hashNetIface, "which container is on which bridge, and which bridges were switched on"},
}

// SetTypes are the types of sets that policies use.
func SetTypes() []string {
	var types []string
	for _, s := range setUses {
		types = append(types, s.typ)
	}
	return types
}

// TrySets makes a set of each type, and tells what the kernel lacks. Call it in a network
// namespace made for that.
func TrySets() []string {
	const name = "ngprobe"
	var lacks []string
	for _, s := range setUses {
		if err := netlink.IpsetCreate(name, s.typ, netlink.IpsetCreateOptions{}); err != nil {
			lacks = append(lacks, fmt.Sprintf("%s (%s): %v", s.typ, s.use, err))
		} else if err := netlink.IpsetDestroy(name); err != nil {
			lacks = append(lacks, fmt.Sprintf("%s cannot be removed: %v", s.typ, err))
		}
	}
	return lacks
}
