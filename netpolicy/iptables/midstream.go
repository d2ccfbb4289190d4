package iptables

import (
	"net/netip"
	"strings"

	"netguard/netpolicy"
)

// Connections within a bridge are older than the kernel's table of connections when
// the bridge begins to hand over its frames. Of TCP the table enters them from the
// middle, and from whichever side sends first. If that is the server, policy asked
// about the packet would be asked about a connection that nobody opens: one that is
// denied would go on for good because the server may open one to the client, or one
// that is allowed would stop because it may not.
//
// So packets of TCP that are not the first of a connection and belong to none are
// judged by who must be the client: clients use ports that the system gives out. A
// packet from a low port to a high one goes through mirrored chains, in which source
// and destination have changed places. Where the ports do not tell, both ways have to
// be allowed.
//
// That is a doubt, and who may not send would put it to use: a packet that begins
// nothing makes the table enter a connection as well. Therefore it is only for
// containers that were on the bridge when it began to hand over frames, among
// themselves, and for a short time from then on. Whatever is routed the table knows
// from its beginning. What comes later is judged as it is: of a connection that the
// table has lost, the client goes on, and the server when the client has.
//
// Nothing can be opened so: a connection begins with a SYN, which is judged as it
// is.
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

// beganFor is how long after a bridge began to hand over its frames connections may
// be entered from the middle, in seconds: what is alive says something within it.
const beganFor = 60

// beganSet holds the containers that were on a bridge when it began, with the bridge.
func beganSet(ipv6 bool) setSpec {
	return setSpec{name: setPrefix(ipv6) + "began", typ: hashNetIface, ipv6: ipv6, timeout: beganFor}
}

// begin notes who is on a bridge that is about to hand over its frames.
func (d *Driver) begin(i int, bridge string) error {
	if d.wish == nil { // there are no rules yet
		return nil
	}
	var list []element
	for _, h := range d.wish.Homes {
		if a := h.Addr.Unmap(); h.Bridge == bridge && a.Is6() == (i == 1) {
			list = append(list, element{Member: netpolicy.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Bridge: bridge}})
		}
	}
	return d.sets.change(beganSet(i == 1), false, list)
}

// midstream leads packets of TCP in the middle of a connection to the mirror of an
// entry chain.
func midstream(ipv6 bool, o Options, entry string) []string {
	name := beganSet(ipv6).name
	// The destination is one of the bridge that the packet came from: it stays there.
	within := join(set(name, "src,src", false), set(name, "dst,src", false))
	rule := func(from, to, lead string) string {
		return join("-p tcp -m tcp --sport", from, "--dport", to, notSyn, within, lead, o.mirrored(entry))
	}
	return []string{rule(lowPorts, highPorts, "-g"), rule(lowPorts, lowPorts, "-j"), rule(highPorts, highPorts, "-j")}
}

// mirror words the mirrors of the chains that forwarded packets come to, as far as
// they are about TCP. They count nothing: it is no new connection that they drop.
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
