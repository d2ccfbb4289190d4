package iptables

import (
	"strconv"

	"netguard/netpolicy"
)

// goesOn lets pass what belongs to a connection that exists. An error message (RELATED,
// of ICMP) belongs to the connection that it quotes. Routers on the way send them, and
// the far end; but anybody can who knows of the connection, with whatever he likes
// after the quote. So those of containers that may not send all they want are judged
// as what they are: messages of ICMP that the container sends.
func (w *wording) goesOn(path netpolicy.Path) []string {
	if path == netpolicy.Output { // the host's own
		return []string{"-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", itself}
	}
	rules := append([]string{"-m conntrack --ctstate ESTABLISHED -j RETURN"}, atHome(w.f.IPv6, path)...)
	icmp := "icmp"
	if w.f.IPv6 {
		icmp = "ipv6-icmp"
	}
	for _, s := range w.f.Sets {
		if w.closesSenders(s.Name) {
			rules = append(rules, join("-p", icmp, "-m conntrack --ctstate RELATED", w.setMatch(netpolicy.SetMatch{Set: s.Name, Side: netpolicy.Src}), "-g", w.o.name(w.f.Entry[path])))
		}
	}
	return append(rules, "-m conntrack --ctstate RELATED -j RETURN")
}

// itself lets pass what the host says to itself: what is for one of its own addresses
// still, after all translation. The device alone does not tell. The first packet of a
// connection to one of the host's addresses has the loopback device, also where a
// published port has led it on to a container. It costs one look-up, of what begins.
const itself = "-o lo -m addrtype --dst-type LOCAL -j RETURN"

// closesSenders tells whether a set is one of those whom policies let send only what
// they list: a chain is passed by who is not in it.
func (w *wording) closesSenders(name string) bool {
	if s := w.sets[name]; !s.Scoped || !s.Closes || s.Kind != netpolicy.Addrs && s.Kind != netpolicy.Places {
		return false
	}
	for _, c := range w.f.Chains {
		for _, r := range c.Rules {
			if len(r.Sets) == 1 && r.Verdict != netpolicy.Drop && r.Sets[0] == (netpolicy.SetMatch{Set: name, Side: netpolicy.Src, Not: true}) {
				return true
			}
		}
	}
	return false
}

// discovery lets pass what IPv6 needs to work at all, and nothing that only calls
// itself so. Multicast listener messages go to groups. Neighbour discovery is never
// routed: its hop limit is 255, of which the first router takes one. Only routers
// redirect, which of containers and the host is the host.
func discovery(path netpolicy.Path) []string {
	var rules []string
	message := func(before string, typ int, after string) {
		rules = append(rules, join(before, "-p ipv6-icmp -m icmp6 --icmpv6-type", strconv.Itoa(typ), after, "-j RETURN"))
	}
	for _, t := range []int{130, 131, 132, 143} {
		message("-d ff00::/8", t, "")
	}
	for t := 133; t <= 137; t++ {
		if t < 137 || path == netpolicy.Output {
			message("", t, "-m hl --hl-eq 255")
		}
	}
	return rules
}
