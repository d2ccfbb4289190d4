package iptables

import (
	"strings"

	"netguard/netpolicy"
)

// In monitor mode the same rules count and hand over what they would refuse, and let it pass.
// Therefore only this file words a rule that refuses. Cut cuts nothing, and the rules do not
// refuse what was cut before.
//
// The chains of a rule set have other names in monitor mode. So a switch of the mode is like
// another generation: new chains beside the old ones, and one transaction a family that leads
// packets there.

// The prefixes of a generation's chains and of their mirrors, in either mode.
const (
	monitorPrefix       = "NGM-"
	mirrorPrefix        = "NGR-"
	monitorMirrorPrefix = "NGMR-"
)

// name gives a chain of the rule set its name in the kernel.
func (o Options) name(chain string) string {
	if o.Monitor {
		return monitorPrefix + strings.TrimPrefix(chain, netpolicy.ChainPrefix)
	}
	return chain
}

// ownsGeneration tells whether a chain is of a generation, in either mode.
func ownsGeneration(name string) bool {
	for _, prefix := range []string{netpolicy.ChainPrefix, mirrorPrefix, monitorPrefix, monitorMirrorPrefix} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && netpolicy.OwnsChain(netpolicy.ChainPrefix+rest) {
			return true
		}
	}
	return false
}

// refuse words what happens to a refused packet.
func (o Options) refuse() string {
	if o.Monitor {
		return "-j RETURN"
	}
	return "-j DROP"
}

// verdict words what happens to a packet that a rule matches.
func (o Options) verdict(r netpolicy.Rule) string {
	switch r.Verdict {
	case netpolicy.Goto:
		return "-g " + o.name(r.Goto)
	case netpolicy.Return:
		return "-j RETURN"
	}
	return o.refuse()
}
