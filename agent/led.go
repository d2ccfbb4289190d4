package agent

import (
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/netpolicy"
)

// led are the networks, by ID, that the rules were looked at for since Docker wrote its
// own: for each network that it makes, it puts some that accept what its containers send
// before all that is there, netguard's jumps among them. Once these were put first again
// they stay before that network's. A set is never changed, only replaced.
type led map[string]bool

// allOf are those that Docker's rules may be there for.
func allOf(v docker.View) led {
	out := make(led, len(v.Networks))
	for id := range v.Networks {
		out[id] = true
	}
	return out
}

// lead notes the networks that packets are led to netguard's rules of.
func (p *police) lead(to led) {
	for id := range to {
		p.news = p.news || !p.led[id] // somebody may wait for it
	}
	p.led = to
}

// behind tells whether packets of an endpoint that policies hold may be led past them.
func (p *policing) behind(key endpoint.Key) bool { return p.holds(key) && !p.led[key.Network] }

// holds tells whether policies are about an endpoint.
func (p *policing) holds(key endpoint.Key) bool {
	s := p.ruling.states[key]
	return s.Isolated(netpolicy.Ingress) || s.Isolated(netpolicy.Egress) || p.ruling.within[key]
}
