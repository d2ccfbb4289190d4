package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// Others are rules of others that decide about a packet before netguard's do: where it
// is led to (the table nat), and whether the kernel knows its connection (raw).
type Others struct {
	nat, raw [2]map[string][]string
	native   []string // rules of nftables' own that have notrack
}

// ReadOthers reads them. It changes nothing.
func (d *Driver) ReadOthers(ctx context.Context) (*Others, error) {
	o := &Others{}
	for _, i := range d.families {
		o.nat[i], o.raw[i] = map[string][]string{}, map[string][]string{}
		for _, b := range d.backends {
			for name, into := range map[string]map[string][]string{"nat": o.nat[i], "raw": o.raw[i]} {
				if b.kind == Legacy && !legacyHas(i, name) {
					continue
				}
				out, err := b.run(ctx, b.fam[i].save, []string{"-t", name}, "")
				if err != nil {
					return nil, fmt.Errorf("list %s table %s: %w", familyNames[i], name, err)
				}
				t, err := parseTable(out)
				if err != nil {
					return nil, err
				}
				for chain, rules := range t.rules {
					into[chain] = append(into[chain], rules...)
				}
			}
		}
	}
	var err error
	o.native, err = NativeNotrack()
	return o, err
}

// legacyHas tells whether the legacy backend has a table: to ask its programs makes one.
func legacyHas(i int, table string) bool {
	text, err := os.ReadFile("/proc/thread-self/net/" + []string{"ip_tables_names", "ip6_tables_names"}[i])
	return err == nil && slices.Contains(strings.Fields(string(text)), table)
}

// NativeNotrack lists the rules of nftables, those of iptables aside, that take packets
// out of the table of connections: the chain that each is in.
func NativeNotrack() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	// Only what is called before connections are looked up can do so.
	early := map[string]bool{}
	key := func(t *nftables.Table) string { return fmt.Sprint(t.Family, t.Name) }
	for _, c := range chains {
		if c.Hooknum != nil && c.Priority != nil && *c.Priority < -200 && (*c.Hooknum == *nftables.ChainHookPrerouting || *c.Hooknum == *nftables.ChainHookOutput) {
			early[key(c.Table)] = true
		}
	}
	var out []string
	for _, c := range chains {
		family := map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}[c.Table.Family]
		if family == "" || !early[key(c.Table)] {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		if slices.ContainsFunc(rules, func(r *nftables.Rule) bool {
			return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool { _, ok := e.(*expr.Notrack); return ok })
		}) {
			out = append(out, fmt.Sprintf("table %s %s, chain %s", family, c.Table.Name, c.Name))
		}
	}
	return out, nil
}

// NotracksPacket tells whether a rule of iptables takes packets out of the table of
// connections.
func NotracksPacket(rule string) bool {
	return strings.HasSuffix(rule, "-j NOTRACK") || strings.HasSuffix(rule, "-j CT --notrack")
}

// Untracked lists the rules that take packets of a service out of the table of
// connections, of any service where none is given. What a rule asks for beside protocol
// and ports is not looked at.
func (o *Others) Untracked(s *netpolicy.Service) []string {
	var out []string
	for i, chains := range o.raw {
		for _, chain := range sortedKeys(chains) {
			for _, r := range chains[chain] {
				if NotracksPacket(r) && mayMatch(r, s) {
					out = append(out, fmt.Sprintf("%s raw %s: %s", familyNames[i], chain, r))
				}
			}
		}
	}
	return append(out, o.native...)
}

// mayMatch tells whether a rule may be about packets of a service, either way.
func mayMatch(rule string, s *netpolicy.Service) bool {
	if s == nil {
		return true
	}
	words := strings.Fields(rule)
	for k := range len(words) - 1 {
		value := words[k+1]
		switch words[k] {
		case "-p":
			if !(k > 0 && words[k-1] == "!") && value != s.Proto.String() {
				return false
			}
		case "--dport", "--sport":
			if !(k > 0 && words[k-1] == "!") && !inPorts(value, s.Port) {
				return false
			}
		}
	}
	return true
}

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

// Led tells where nat leads the first packet of a connection to, and false if it leaves
// it as it is. in is the device that it comes by, "" for the host's own and "-" for one
// that is none of Docker's. A rule that asks for what is not known here is passed by.
func (o *Others) Led(in string, src, dst netip.Addr, s netpolicy.Service, local func(netip.Addr) bool) (netip.AddrPort, bool) {
	chain := "PREROUTING"
	if in == "" {
		chain = "OUTPUT"
	}
	l := led{rules: o.nat[index(dst.Is6())], in: in, src: src, dst: dst, service: s, local: local}
	to, _ := l.walk(chain, 0)
	return to, to.IsValid()
}

type led struct {
	rules    map[string][]string
	in       string
	src, dst netip.Addr
	service  netpolicy.Service
	local    func(netip.Addr) bool
}

// walk goes through a chain; over says that the packet goes through no more of them.
func (l *led) walk(chain string, depth int) (to netip.AddrPort, over bool) {
	if depth > 16 {
		return to, true
	}
	for _, rule := range l.rules[chain] {
		target, argument, ok := l.matches(strings.Fields(rule))
		switch {
		case !ok:
		case target == "RETURN":
			return to, false
		case target == "DNAT":
			if a, err := netip.ParseAddrPort(argument); err == nil {
				return a, true
			}
			return to, true
		case l.rules[target] != nil || target == "DOCKER":
			if to, over = l.walk(target, depth+1); over {
				return to, true
			}
		case target == "ACCEPT" || target == "REDIRECT":
			return to, true
		}
	}
	return to, false
}

func (l *led) matches(words []string) (target, argument string, ok bool) {
	for k := 0; k < len(words); k++ {
		not := words[k] == "!"
		if not {
			k++
		}
		if k+1 >= len(words) {
			return "", "", false
		}
		is := true
		value := words[k+1]
		switch words[k] {
		case "-m":
		case "-i":
			is = value == l.in
		case "-s", "-d":
			a := l.dst
			if words[k] == "-s" {
				a = l.src
			}
			p, err := netip.ParsePrefix(value)
			if err != nil {
				return "", "", false
			}
			is = p.Contains(a)
		case "-p":
			is = value == l.service.Proto.String()
		case "--dport":
			is = inPorts(value, l.service.Port)
		case "--dst-type":
			if value != "LOCAL" {
				return "", "", false
			}
			is = l.local(l.dst)
		case "-j":
			target = value
		case "--to-destination":
			argument = value
		default:
			return "", "", false
		}
		if is == not {
			return "", "", false
		}
		k++
	}
	return target, argument, true
}
