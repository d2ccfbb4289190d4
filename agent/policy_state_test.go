package agent

import (
	"testing"

	"netguard/agent/endpoint"
	"netguard/netpolicy"
)

func TestPoliciesClose(t *testing.T) {
	key := endpoint.Key{Container: "c"}
	for closed, want := range map[string]bool{"": false, "p": true} {
		s := netpolicy.State{}
		if closed != "" {
			s.Policies[netpolicy.Ingress] = []string{closed}
		}
		p := &policyState{ruling: &ruling{states: map[endpoint.Key]netpolicy.State{key: s}}}
		if p.closes() != want {
			t.Errorf("%q: %t", closed, p.closes())
		}
	}
}
