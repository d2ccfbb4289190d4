package reconcile

import (
	"testing"

	"netguard/agent/desired"
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
		p := &PolicyState{Ruling: &desired.Ruling{States: map[endpoint.Key]netpolicy.State{key: s}}}
		if p.Closes() != want {
			t.Errorf("%q: %t", closed, p.Closes())
		}
	}
}
