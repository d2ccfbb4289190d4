package iptables

import (
	"slices"
	"strconv"

	"netguard/netpolicy"
)

// goesOn lets pass what belongs to a connection that exists. An error message (RELATED, of
// ICMP) belongs to the connection that it quotes. Routers and the far end send such messages.
// But anybody who knows of the connection can send one too, with any content after the quote.
// So an error message of a container that may not send everything is judged as what it is: a
// message of ICMP that the container sends.
func (w *wording) goesOn(path netpolicy.Path) []string {
	const established, related = "-m conntrack --ctstate ESTABLISHED -j RETURN", "-m conntrack --ctstate RELATED -j RETURN"
	counted := vacant(w.f.IPv6, path)
	if path == netpolicy.Output { // the host's own
		return slices.Concat([]string{established, itself}, counted, []string{related})
	}
	rules := slices.Concat([]string{established}, counted, atHome(w.f.IPv6, path))
	icmp := "icmp"
	if w.f.IPv6 {
		icmp = "ipv6-icmp"
	}
	for _, s := range w.f.Sets {
		if w.closesSenders(s.Name) {
			rules = append(rules, join("-p", icmp, "-m conntrack --ctstate RELATED", w.setMatch(netpolicy.SetMatch{Set: s.Name, Side: netpolicy.Src}), "-g", w.o.name(w.f.Entry[path])))
		}
	}
	return append(rules, related)
}

// itself lets pass what the host sends to itself: packets for one of its own addresses, after
// all translation. The device alone does not tell. The first packet to a published port of
// the host has the loopback device, too, although it goes to a container. The rule costs one
// look-up for each new connection.
const itself = "-o lo -m addrtype --dst-type LOCAL -j RETURN"

// closesSenders tells whether a set has containers that may send only what policies list. A
// chain of such policies begins by letting everybody pass who is not in the set.
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

// discovery lets pass the messages without which IPv6 does not work, and no imitations of
// them. Multicast listener messages go to groups. Neighbour discovery is never routed: its hop
// limit is 255, and a router would lower it. Only routers redirect, and here that is the host.
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
