package iptables

import (
	"net/netip"
	"strings"

	"netguard/netpolicy"
)

// When a bridge begins to hand over its frames, it has connections that the kernel's table
// does not know. For TCP, the table then enters a connection from the middle, in the
// direction of the next packet. If the server sends that packet, policy would judge a
// connection that nobody opens. A denied connection would go on for good if the server may
// open one to the client. An allowed one would stop if the server may not.
//
// So the rules judge a packet of TCP that begins nothing and belongs to no connection by who
// must be the client: clients use ports that the system gives out. A packet from a low port to
// a high one goes through mirrored chains, in which source and destination have changed
// places. Where the ports do not tell, policy has to allow both directions.
//
// A container that may not send could use this doubt, because its packet makes the table enter
// a connection as well. So the mirrors are only for containers that were on the bridge when
// it began, among each other, and for a short time. The table knows routed connections from
// their beginning. Later packets are judged as they are: if the table has lost a connection,
// the client goes on, and after that the server.
//
// Nobody can open a connection in this way: it begins with a SYN, which is judged as it is.
const (
	lowPorts  = "0:32767"
	highPorts = "32768:65535" // net.ipv4.ip_local_port_range begins there
	firstHigh = 32768

	notSyn = "! --tcp-flags FIN,SYN,RST,ACK SYN"
)

// mirrored names the mirror of a chain of the rule set.
func (o Options) mirrored(chain string) string {
	if o.Monitor {
		return monitorMirrorPrefix + strings.TrimPrefix(chain, netpolicy.ChainPrefix)
	}
	return mirrorPrefix + strings.TrimPrefix(chain, netpolicy.ChainPrefix)
}

// beganFor is how long, in seconds, connections may be entered from the middle after a bridge
// began to hand over its frames. A connection that is alive sends something within it.
const beganFor = 60

// beganSet has the containers that were on a bridge when it began, with the bridge.
func beganSet(ipv6 bool) setSpec {
	return setSpec{name: netpolicy.SetPrefix(ipv6) + "began", typ: hashNetIface, ipv6: ipv6, timeout: beganFor}
}

// begin notes the containers on a bridge that is about to hand over its frames. The next lists
// look for late answers to them.
func (d *Driver) begin(i int, bridge string) error {
	if d.wish == nil { // there are no rules yet
		return nil
	}
	var list []element
	for _, h := range d.wish.Homes {
		if a := h.Addr.Unmap(); h.Bridge == bridge && a.Is6() == (i == 1) {
			list = append(list, element{Member: netpolicy.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Bridge: bridge}})
			d.late.await(a, true)
		}
	}
	return d.sets.change(beganSet(i == 1), false, list)
}

// midstream leads packets from the middle of a TCP connection to the mirror of an entry chain.
func midstream(ipv6 bool, o Options, entry string) []string {
	name := beganSet(ipv6).name
	// The destination is on the bridge that the packet came from, so the packet stays there.
	within := join(set(name, "src,src", false), set(name, "dst,src", false))
	rule := func(from, to, lead string) string {
		return join("-p tcp -m tcp --sport", from, "--dport", to, notSyn, within, lead, o.mirrored(entry))
	}
	return []string{rule(lowPorts, highPorts, "-g"), rule(lowPorts, lowPorts, "-j"), rule(highPorts, highPorts, "-j")}
}

// mirror words the mirrors of the chains that forwarded packets meet, as far as they are about
// TCP. They count nothing, because what they drop is no new connection.
func (w *wording) mirror(f *netpolicy.Family) []chain {
	var all []chain
	for _, c := range f.Chains {
		if !w.paths[c.Name][netpolicy.Forward] {
			continue
		}
		m := chain{name: w.o.mirrored(c.Name)}
		for _, r := range c.Rules {
			if r.Proto != netpolicy.AnyProtocol && r.Proto != netpolicy.TCP {
				continue
			}
			var parts []string
			if r.Proto == netpolicy.TCP {
				parts = append(parts, "-p tcp")
			}
			if len(r.Ports) > 0 {
				parts = append(parts, "-m multiport --sports "+portList(r.Ports))
			}
			for _, s := range r.Sets {
				s.Side = netpolicy.Src + netpolicy.Dst - s.Side
				parts = append(parts, w.setMatch(s))
			}
			lead := w.o.verdict(r)
			if r.Verdict == netpolicy.Goto {
				lead = "-g " + w.o.mirrored(r.Goto)
			}
			m.rules = append(m.rules, join(append(parts, lead)...))
		}
		all = append(all, m)
	}
	return all
}
