package reconcile

import (
	"errors"
	"fmt"

	"netguard/agent/desired"
	"netguard/agent/endpoint"
	"netguard/netpolicy/iptables"
)

// PolicyState is how far policies are in force after the last pass. It does not change.
type PolicyState struct {
	Ruling          *desired.Ruling
	err, bridgesErr error
	// left is why older rules are still there, although the ruling is in force.
	left    error
	covered networks
}

// state gives how far policies are in force.
func (p *policing) state() *PolicyState {
	s := &PolicyState{Ruling: p.ruling, bridgesErr: p.bridges.err, covered: p.covered}
	if p.late && p.holds {
		s.left = p.err
	} else {
		s.err = p.err
	}
	return s
}

// Pending says why policies are not in force for an endpoint; "" if they are.
func (p *PolicyState) Pending(key endpoint.Key, bridge string) string {
	if p == nil || p.Ruling == nil {
		return "policies are not compiled yet"
	}
	if !p.Ruling.Governs(key) {
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

// within says why policies do not see an endpoint's traffic inside its network; nil if they do,
// or need not.
func (p *PolicyState) within(key endpoint.Key, bridge string) error {
	if p.bridgesErr == nil || !p.Ruling.Within(key) {
		return nil
	}
	var some iptables.BridgeError
	if errors.As(p.bridgesErr, &some) {
		return some[bridge]
	}
	return p.bridgesErr
}

// Finding is what an operator should know about policies of this host; "" if nothing.
func (p *PolicyState) Finding() string {
	if p == nil || p.left == nil {
		return ""
	}
	return fmt.Sprintf("policies are in force, and what was before them cannot all be taken away: %v: trying again", p.left)
}

// Closes tells whether policies isolate any endpoint.
func (p *PolicyState) Closes() bool {
	return p != nil && p.Ruling != nil && p.Ruling.Any()
}
