package iptables

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// A rule may take packets out of the kernel's table of connections. Then nothing tells that a
// packet is an answer, and policies refuse answers that they would allow.

// nftFamilies are the families of nftables.
var nftFamilies = map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip",
	nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyBridge: "bridge", nftables.TableFamilyNetdev: "netdev",
	nftables.TableFamilyARP: "arp"}

// beforeConnections tells whether a packet meets a chain before the kernel looks its connection
// up.
func beforeConnections(c *nftables.Chain) bool {
	if c.Hooknum == nil || c.Priority == nil {
		return false
	}
	switch c.Table.Family {
	case nftables.TableFamilyARP:
		return false
	case nftables.TableFamilyNetdev:
		return true
	case nftables.TableFamilyBridge:
		// A bridge hands its frames to iptables at priority 0.
		return *c.Priority < 0 && *c.Hooknum == *nftables.ChainHookPrerouting
	}
	const ingress = 5 // of the family inet
	early := *c.Hooknum == *nftables.ChainHookPrerouting || *c.Hooknum == *nftables.ChainHookOutput
	return *c.Priority < -200 && early || *c.Hooknum == ingress && c.Table.Family == nftables.TableFamilyINet
}

// NativeNotrack lists the rules of nftables, but not those of iptables, that take packets out of
// the table of connections. It names the chain of each rule that packets can reach.
func NativeNotrack() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	// By family and name of the table: where each chain leads to, and chains with notrack.
	leads, found := map[string]map[string][]string{}, map[string]bool{}
	key := func(t *nftables.Table) string { return nftFamilies[t.Family] + " " + t.Name }
	var roots []*nftables.Chain
	early := map[string]bool{}
	for _, c := range chains {
		if beforeConnections(c) {
			roots, early[key(c.Table)] = append(roots, c), true
		}
	}
	for _, c := range chains {
		if !early[key(c.Table)] {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		to := leads[key(c.Table)]
		if to == nil {
			to = map[string][]string{}
			leads[key(c.Table)] = to
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case *expr.Notrack:
					found[key(c.Table)+"\x00"+c.Name] = true
				case *expr.Verdict:
					to[c.Name] = append(to[c.Name], e.Chain)
				case *expr.Lookup:
					if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT {
						to[c.Name] = append(to[c.Name], everyChain)
					}
				}
			}
		}
	}
	var out []string
	for _, c := range chains {
		if found[key(c.Table)+"\x00"+c.Name] && slices.ContainsFunc(roots, func(r *nftables.Chain) bool {
			return key(r.Table) == key(c.Table) && leadsTo(leads[key(c.Table)], r.Name, c.Name, map[string]bool{})
		}) {
			out = append(out, fmt.Sprintf("table %s, chain %s", key(c.Table), c.Name))
		}
	}
	return out, nil
}

// everyChain stands for the chains that a map of verdicts leads to.
const everyChain = "*"

// leadsTo tells whether a packet may get from one chain to another.
func leadsTo(leads map[string][]string, from, to string, seen map[string]bool) bool {
	if from == to || from == everyChain {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	return slices.ContainsFunc(leads[from], func(next string) bool { return next != "" && leadsTo(leads, next, to, seen) })
}

// notracks tells whether a rule of iptables takes packets out of the table of connections.
func notracks(words []string) bool {
	i := slices.Index(words, "-j")
	return i >= 0 && i+1 < len(words) && (words[i+1] == "NOTRACK" || words[i+1] == "CT" && slices.Contains(words[i+2:], "--notrack"))
}

// Untracking lists the rules of the table raw that take packets of a service out of the table
// of connections, each after its chain. Without a service it lists those about any. It looks
// only at protocol and ports of a rule.
func Untracking(raw map[string][]string, s *netpolicy.Service) []string {
	var out []string
	seen := map[string]bool{}
	var walk func(chain string)
	walk = func(chain string) {
		if seen[chain] {
			return
		}
		seen[chain] = true
		for _, rule := range raw[chain] {
			words := strings.Fields(rule)
			if !mayMatch(words, s) {
				continue
			}
			if notracks(words) {
				out = append(out, chain+" "+rule)
			}
			for k := range len(words) - 1 {
				if _, ok := raw[words[k+1]]; ok && (words[k] == "-j" || words[k] == "-g") {
					walk(words[k+1])
				}
			}
		}
	}
	walk("PREROUTING")
	walk("OUTPUT")
	slices.Sort(out)
	return out
}

// Untracked lists the rules that take packets of a service, or of any service where none is
// given, out of the table of connections.
func (o *Others) Untracked(s *netpolicy.Service) []string {
	var out []string
	for i, chains := range o.raw {
		for _, r := range Untracking(chains, s) {
			out = append(out, familyNames[i]+" raw "+r)
		}
	}
	return append(out, o.native...)
}

// mayMatch tells whether a rule may be about packets of a service, in either direction.
func mayMatch(words []string, s *netpolicy.Service) bool {
	if s == nil {
		return true
	}
	for k := range len(words) - 1 {
		value, not := words[k+1], k > 0 && words[k-1] == "!"
		switch words[k] {
		case "-p":
			icmp := strings.Contains(value, "icmp") && strings.Contains(s.Proto.String(), "icmp")
			if !not && value != "all" && value != s.Proto.String() && !icmp {
				return false
			}
		case "--dport", "--sport", "--dports", "--sports", "--ports":
			if !not && !slices.ContainsFunc(strings.Split(value, ","), func(part string) bool { return inPorts(part, s.Port) }) {
				return false
			}
		}
	}
	return true
}

// inPorts tells whether a port is in a range. A range that cannot be read has every port.
func inPorts(text string, port uint16) bool {
	first, last, isRange := strings.Cut(text, ":")
	from, err := strconv.ParseUint("0"+first, 10, 16)
	to := from
	if isRange {
		if to = 65535; last != "" {
			to, _ = strconv.ParseUint(last, 10, 16)
		}
	}
	return err != nil || uint64(port) >= from && uint64(port) <= to
}
