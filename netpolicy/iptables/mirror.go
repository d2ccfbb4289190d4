package iptables

import (
	"strings"

	"netguard/netpolicy"
)

// A TCP connection that the kernel's table has no entry of and that goes on all
// the same, since it is older than the table's knowledge (a bridge handed over no
// frames until now; somebody emptied the table), is entered from the middle, and
// from whichever side sends first. If that is the server, policy asked about the
// packet would be asked about a connection that nobody opens: one that is denied
// would go on for good because the server may open one to the client, or one that
// is allowed would stop because it may not.
//
// So packets of TCP that are not the first of a connection and belong to none are
// judged by who must be the client: clients use ports that the system gives out.
// A packet from a low port to a high one goes through mirrored chains, in which
// source and destination have changed places. Where the ports do not tell, both
// ways have to be allowed.
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

// midstream leads packets of TCP in the middle of a connection to the mirror of
// an entry chain.
func midstream(o Options, entry string) []string {
	rule := func(from, to, lead string) string {
		return join("-p tcp -m tcp --sport", from, "--dport", to, notSyn, lead, o.mirrored(entry))
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
