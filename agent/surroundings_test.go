package agent

import (
	"strings"
	"testing"

	"netguard/agent/endpoint"
	"netguard/netpolicy"
)

func TestUntracked(t *testing.T) {
	if text := untracked(nil); text != "" {
		t.Error(text)
	}
	if text := untracked([]string{"a", "b", "c", "d", "e"}); !strings.Contains(text, "(a; b; c; and 2 more)") {
		t.Error(text)
	}
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
