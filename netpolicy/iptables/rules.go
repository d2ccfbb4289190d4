package iptables

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"netguard/netpolicy"
)

// Names of chains that no rule set has.
const (
	chainForward = "NG-FORWARD"
	chainInput   = "NG-INPUT"
	chainOutput  = "NG-OUTPUT"
)

// staticChains are the chains that the anchors lead to, by path.
var staticChains = [3]string{netpolicy.Forward: chainForward, netpolicy.Input: chainInput, netpolicy.Output: chainOutput}

// deniedSet counts denied packets by container.
func deniedSet(ipv6 bool) setSpec {
	return setSpec{name: netpolicy.SetPrefix(ipv6) + "denied", typ: hashIP, ipv6: ipv6, counters: true}
}

// cutSet has the connections that were cut: client, port of the server, server.
func cutSet(ipv6 bool, seconds uint32) setSpec {
	return setSpec{name: netpolicy.SetPrefix(ipv6) + "cut", typ: hashIPPortIP, ipv6: ipv6, timeout: seconds}
}

// chain is a chain with its rules, each as iptables-save prints it.
type chain struct {
	name  string
	rules []string
}

// layout is what netguard wants in the filter table of a family.
type layout struct {
	generation []chain // each after the chains that it leads to; mirrors last
	static     []chain // the three, chainStray, and the chain that notes the format
}

// lay words a family as iptables does. It refuses what netpolicy cannot have made, so that no
// other text gets into a rule. With samples, each drop hands a few packets over.
func lay(f *netpolicy.Family, o Options) (*layout, error) {
	known := map[string]*netpolicy.Set{}
	for i, s := range f.Sets {
		if !netpolicy.OwnsSet(s.Name) || !strings.HasPrefix(s.Name, netpolicy.SetPrefix(f.IPv6)) {
			return nil, fmt.Errorf("name set %q: %w", s.Name, ErrInvalid)
		}
		known[s.Name] = &f.Sets[i]
	}
	w := wording{f: f, o: o, sets: known, paths: paths(f), chains: map[string]bool{}}
	l := &layout{}
	for _, c := range f.Chains {
		laid := chain{name: o.name(c.Name)}
		if !netpolicy.OwnsChain(c.Name) || w.chains[c.Name] {
			return nil, fmt.Errorf("name chain %q: %w", c.Name, ErrInvalid)
		}
		for i, r := range c.Rules {
			spec, err := w.match(r)
			if err != nil {
				return nil, fmt.Errorf("word rule %d of chain %s: %w", i, c.Name, err)
			}
			if r.Verdict == netpolicy.Drop {
				side := w.blamed(c.Name, r.Origin)
				if o.Samples {
					laid.rules = append(laid.rules, join(spec, Refusal{side, directionOf(r.Origin)}.sample()))
				}
				laid.rules = append(laid.rules, join(spec, set(deniedSet(f.IPv6).name, side.String(), false)))
			}
			laid.rules = append(laid.rules, join(spec, o.verdict(r)))
		}
		w.chains[c.Name] = true // from here on other chains may lead to it
		l.generation = append(l.generation, laid)
	}
	l.generation = append(l.generation, w.mirror(f)...)
	for path, name := range staticChains {
		if !w.chains[f.Entry[path]] {
			return nil, fmt.Errorf("enter chain %q: %w", f.Entry[path], ErrInvalid)
		}
		l.static = append(l.static, chain{name, w.static(netpolicy.Path(path))})
	}
	l.static = append(l.static, stray(f.IPv6, o), chain{name: formatChain(Format)})
	return l, nil
}

// keep gives the part of an agreed table about chains that are the same in this layout and in
// was. The table was agreed for was.
func (l *layout) keep(agreed *table, was *layout) *table {
	if agreed == nil || was == nil {
		return nil
	}
	before := map[string][]string{}
	for _, c := range slices.Concat(was.generation, was.static) {
		before[c.name] = c.rules
	}
	kept := newTable()
	for _, c := range slices.Concat(l.generation, l.static) {
		if rules, ok := before[c.name]; ok && agreed.has(c.name) && slices.Equal(rules, c.rules) {
			kept.rules[c.name] = agreed.rules[c.name]
		}
	}
	return kept
}

// static gives the rules of one of the three chains.
func (w *wording) static(path netpolicy.Path) []string {
	ipv6, o, entry := w.f.IPv6, w.o, w.f.Entry[path]
	rules := w.goesOn(path)
	if !o.Monitor { // in monitor mode nothing is cut
		cut := set(cutSet(ipv6, o.cutSeconds()).name, "dst,src,src", false)
		rules = append(rules,
			// The refusal lasts as long as the server goes on.
			join(cut, "-j SET --add-set "+cutSet(ipv6, o.cutSeconds()).name+" dst,src,src --exist"),
			// The server may open a connection of its own from that port.
			join("-p tcp -m tcp", notSyn, cut, o.refuse()),
			join("! -p tcp", cut, o.refuse()))
	}
	if ipv6 {
		rules = append(rules, discovery(path)...)
	}
	if path == netpolicy.Forward {
		rules = append(rules, midstream(ipv6, o, entry)...)
	}
	return append(rules, "-j "+o.name(entry))
}

// wording words the rules of a family.
type wording struct {
	f      *netpolicy.Family
	o      Options
	sets   map[string]*netpolicy.Set
	chains map[string]bool // that are worded already
	paths  map[string][3]bool
}

// paths tells on which paths a packet can reach each chain.
func paths(f *netpolicy.Family) map[string][3]bool {
	on := map[string][3]bool{}
	for path, entry := range f.Entry {
		reached := map[string]bool{entry: true}
		for _, c := range slices.Backward(f.Chains) {
			if !reached[c.Name] {
				continue
			}
			p := on[c.Name]
			p[path] = true
			on[c.Name] = p
			for _, r := range c.Rules {
				if r.Verdict == netpolicy.Goto {
					reached[r.Goto] = true
				}
			}
		}
	}
	return on
}

// blamed gives the side of a packet on which the container stands that a drop counts for.
func (w *wording) blamed(chain string, o netpolicy.Origin) netpolicy.Side {
	switch on := w.paths[chain]; {
	case on == [3]bool{netpolicy.Input: true}: // the other end is the host
		return netpolicy.Src
	case on == [3]bool{netpolicy.Output: true}:
		return netpolicy.Dst
	}
	ingress := o.Stage == netpolicy.FileIngress || o.Stage == netpolicy.LabelIngress ||
		o.Stage == netpolicy.Guardrail && o.Direction == netpolicy.Ingress
	if ingress {
		return netpolicy.Dst
	}
	return netpolicy.Src
}

// match words the matches of a rule, the cheapest first.
func (w *wording) match(r netpolicy.Rule) (string, error) {
	var parts []string
	icmp := netpolicy.ICMP
	name, option := "icmp", "-m icmp --icmp-type "
	if w.f.IPv6 {
		icmp, name, option = netpolicy.ICMPv6, "ipv6-icmp", "-m icmp6 --icmpv6-type "
	}
	switch {
	case r.Proto == netpolicy.AnyProtocol:
	case r.Proto.HasPorts():
		parts = append(parts, "-p "+r.Proto.String())
	case r.Proto == icmp:
		parts = append(parts, "-p "+name)
		if r.ICMPType != netpolicy.AnyICMPType {
			parts = append(parts, option+strconv.Itoa(int(r.ICMPType)))
		}
	default:
		return "", fmt.Errorf("protocol %s: %w", r.Proto, ErrInvalid)
	}
	if len(r.Ports) > 0 {
		if !r.Proto.HasPorts() {
			return "", fmt.Errorf("ports of protocol %s: %w", r.Proto, ErrInvalid)
		}
		parts = append(parts, "-m multiport --dports "+portList(r.Ports))
	}
	for _, m := range r.Sets {
		if w.sets[m.Set] == nil {
			return "", fmt.Errorf("set %q: %w", m.Set, ErrInvalid)
		}
		parts = append(parts, w.setMatch(m))
	}
	if r.Verdict == netpolicy.Goto && !w.chains[r.Goto] {
		return "", fmt.Errorf("goto %q: %w", r.Goto, ErrInvalid)
	}
	return strings.Join(parts, " "), nil
}

func (w *wording) setMatch(m netpolicy.SetMatch) string {
	side := m.Side.String()
	if kind := w.sets[m.Set].Kind; kind == netpolicy.Published || kind == netpolicy.Places {
		side += "," + side
	}
	return set(m.Set, side, m.Not)
}

func portList(ports []netpolicy.PortRange) string {
	var list []string
	for _, p := range ports {
		text := strconv.Itoa(int(p.First))
		if p.Last > p.First {
			text += ":" + strconv.Itoa(int(p.Last))
		}
		list = append(list, text)
	}
	return strings.Join(list, ",")
}

func set(name, sides string, not bool) string {
	if not {
		return "-m set ! --match-set " + name + " " + sides
	}
	return "-m set --match-set " + name + " " + sides
}

func join(parts ...string) string {
	return strings.TrimSpace(strings.Join(parts, " "))
}
