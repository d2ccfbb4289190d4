package reconcile

import (
	"testing"

	"netguard/agent/desired"
	"netguard/netpolicy"
)

func TestPoliciesClose(t *testing.T) {
	for closed, want := range map[string]bool{"": false, "p": true} {
		s := netpolicy.State{}
		if closed != "" {
			s.Policies[netpolicy.Ingress] = []string{closed}
		}
		p := &PolicyState{Ruling: &desired.Ruling{Rules: &netpolicy.RuleSet{States: []*netpolicy.State{&s}}}}
		if p.Closes() != want {
			t.Errorf("%q: %t", closed, p.Closes())
		}
	}
}
