package agent

import (
	"errors"
	"fmt"

	"netguard/agent/endpoint"
	"netguard/netpolicy/iptables"
)

// policyState is what the last pass came to. It does not change.
type policyState struct {
	ruling          *ruling
	err, bridgesErr error
	// left is why something of before is still there, though the ruling is in force.
	left    error
	covered networks
}

// state is what policing came to.
func (p *policing) state() *policyState {
	s := &policyState{ruling: p.ruling, bridgesErr: p.bridges.err, covered: p.covered}
	if p.late && p.holds {
		s.left = p.err
	} else {
		s.err = p.err
	}
	return s
}

// pending says why policies do not hold for an endpoint, "" if they do.
func (p *policyState) pending(key endpoint.Key, bridge string) string {
	if p == nil || p.ruling == nil {
		return "policies are not compiled yet"
	}
	if !p.ruling.governs(key) {
		return ""
	}
	if p.err != nil {
		return fmt.Sprintf("policies are not in force: %v", p.err)
	}
	if err := p.within(key, bridge); err != nil {
		return fmt.Sprintf("policies do not count within its network: %v", err)
	}
	if p.uncovered(key) {
		return "Docker wrote rules for its network, and netguard's have to come before them: they are looked at in a moment"
	}
	return ""
}

// within says why policies do not count for an endpoint within its network, where
// they should.
func (p *policyState) within(key endpoint.Key, bridge string) error {
	if p.bridgesErr == nil || !p.ruling.within[key] {
		return nil
	}
	var some iptables.BridgeError
	if errors.As(p.bridgesErr, &some) {
		return some[bridge]
	}
	return p.bridgesErr
}

// finding is what is to be told of the host, "" if nothing.
func (p *policyState) finding() string {
	if p == nil || p.left == nil {
		return ""
	}
	return fmt.Sprintf("policies are in force, and what was before them cannot all be taken away: %v: trying again", p.left)
}

// closes tells whether policies close anything.
func (p *policyState) closes() bool {
	return p != nil && p.ruling != nil && p.ruling.any()
}
